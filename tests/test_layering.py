"""The house rules that imports can hold."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NUMERIC = {"geometry", "body", "solvers", "distributions", "render"}
PARTS = NUMERIC | {"nn", "losses", "metrics", "synthetic"}
ALLOWED = {
    "geometry": set(),
    "body": {"geometry"},
    "solvers": {"geometry", "body"},
    "distributions": {"geometry"},
    "render": {"geometry"},
    "nn": {"geometry"},
    "synthetic": {"geometry", "body", "solvers", "render", "nn"},
    "losses": {"geometry", "distributions"},
    "metrics": {"geometry"},
    # These drive any system through its interface.
    "training": {"metrics", "export", "convert", "systems.system"},
    "evaluation": {"body", "metrics", "training", "systems.system"},
    "convert": {"body"},
    "export": {"body"},
    # The rooms of the systems; see test_a_system_knows_no_other.
    "systems": PARTS | {"evaluation", "convert", "data_pipelines"},
}
# One module of each of these rooms, alone, may be imported from outside the arrows.
EVERYWHERE = {
    "errors",
    "files",
    "outside",
    "pictures",
    "progress",
    "remote",
    "sample_keys",
    "_version",
    "_xla_guard",
}


def imports(path):
    """Absolute names a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def sources(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def named(path):
    """Modules of the project that a module imports, late and by strings too."""
    found = set(imports(path))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            path_of = ROOT / node.value.replace(".", "/")
            if re.fullmatch(r"hmr_jax(\.\w+)+", node.value) and (
                path_of.is_dir() or path_of.with_suffix(".py").is_file()
            ):
                found.add(node.value)
    return found


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_along_the_arrows(room):
    allowed = ALLOWED[room] | EVERYWHERE | {room}
    for path in sources(f"hmr_jax/{room}"):
        for name in named(path):
            parts = name.split(".")
            if parts[0] in {"data_pipelines", "configs"}:
                assert parts[0] in allowed, f"{path}: imports {name}"
            if parts[0] == "hmr_jax" and len(parts) > 1:
                one, two = parts[1], ".".join(parts[1:3])
                assert {one, two} & allowed, f"{path}: imports {name}"


def test_a_system_knows_no_other():
    rooms = {p.name for p in (ROOT / "hmr_jax/systems").iterdir() if p.is_dir()}
    for room in rooms - {"__pycache__"}:
        for path in sources(f"hmr_jax/systems/{room}"):
            for name in named(path):
                parts = name.split(".")
                if parts[:2] == ["hmr_jax", "systems"] and len(parts) > 2:
                    assert parts[2] == room or parts[2] not in rooms, (path, name)


def test_only_the_commands_ask_for_systems():
    """Everything else gets one, and nothing imports a system's room."""
    rooms = {p.name for p in (ROOT / "hmr_jax/systems").iterdir() if p.is_dir()}
    for path in sources("hmr_jax"):
        if "systems" in path.parts:
            continue
        for name in named(path):
            parts = name.split(".")
            if parts[:2] == ["hmr_jax", "systems"]:
                assert len(parts) < 3 or parts[2] not in rooms, (path, name)


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_circles_of_modules():
    """Late imports and strings counted."""
    files = {module_of(p): p for p in sources("hmr_jax") + sources("data_pipelines")}

    def target(name):
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name

    graph = {
        module: {target(name) for name in named(path)} - {"", module}
        for module, path in files.items()
    }
    done, open_ = set(), []

    def visit(module):
        assert module not in open_, " -> ".join([*open_[open_.index(module) :], module])
        if module in done:
            return
        open_.append(module)
        for other in sorted(graph[module]):
            # A package's own name is what its modules are found by.
            if not module.startswith(f"{other}."):
                visit(other)
        open_.pop()
        done.add(module)

    for module in sorted(graph):
        visit(module)


def test_tensorflow_and_pytorch_stay_out():
    for path in sources("hmr_jax") + sources("configs") + sources("data_pipelines"):
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {"torch", "chumpy", "pytorch3d", "pyrender"}, path
        if "data_pipelines" not in path.parts:
            assert not roots & {"tensorflow", "tensorflow_datasets"}, path


def test_data_pipelines_use_the_tables_alone():
    for path in sources("data_pipelines"):
        for name in imports(path):
            if name.startswith("hmr_jax"):
                assert name.startswith(
                    (
                        "hmr_jax.body.genders",
                        "hmr_jax.body.joint_set",  # and joint_sets
                        "hmr_jax.body.npz",
                        "hmr_jax.body.unpickle",
                        "hmr_jax.errors",
                        "hmr_jax.files",
                        "hmr_jax.outside",
                        "hmr_jax.pictures",
                        "hmr_jax.progress",
                    )
                ), f"{path}: imports {name}"


def test_pictures_are_decoded_in_one_place():
    """Others know more formats (and start other programs for some), or fewer depths."""
    for path in sources("hmr_jax") + sources("data_pipelines"):
        if "pictures" not in path.parts:
            for name in ("Image.open(", "cv2.imread(", "cv2.imdecode(", "plt.imread("):
                assert name not in path.read_text(), f"{path}: {name}"


def test_config_dicts_stop_at_the_edge():
    for path in sources("hmr_jax"):
        if not {"commands", "training", "evaluation"} & set(path.parts):
            roots = {name.split(".")[0] for name in imports(path)}
            assert "ml_collections" not in roots, path


def test_only_parallel_maps_over_devices():
    for path in sources("hmr_jax"):
        if path.name != "parallel.py":
            assert "pmap(" not in path.read_text(), path


def test_importing_the_package_is_light_and_writes_nothing(tmp_path):
    program = (
        "import hmr_jax, sys;"
        "heavy = {'tensorflow', 'torch', 'matplotlib', 'orbax', 'tensorflow_datasets'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert not list(tmp_path.iterdir())


def test_tracked_files_are_small():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    sizes = {path: path.stat().st_size for path in files if path.is_file()}
    assert sum(sizes.values()) < 25e6
    assert max(sizes.values()) < 8e6
