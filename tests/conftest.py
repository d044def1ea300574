"""Fixtures and JAX settings shared by every test."""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_FLAG = "--xla_force_host_platform_device_count=2"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()
# Compiling is most of the suite's time. Programs that run once are compiled with few
# optimisations, here and in processes that tests start; `make test-slow` compiles as
# users do.
FEW_OPTIMIZATIONS = not os.environ.get("HMR_TEST_OPTIMIZED")
if FEW_OPTIMIZATIONS:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

# Compiling is most of the suite's time: with HMR_TEST_CACHE set to a folder, programs
# are kept between tests, processes and runs.
if _cache := os.environ.get("HMR_TEST_CACHE"):
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
os.environ["HMR_JAX_CACHE"] = "off"  # the user's own stays out of it

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

import hmr_jax  # noqa: E402, F401  (sets the XLA guard before JAX starts)

TESTS = pathlib.Path(__file__).parent
STRICT_DTYPE_ROOMS = ("geometry", "body", "solvers", "losses", "metrics")

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def _strict_dtypes(request):
    """No silent dtype promotion in the numerical rooms."""
    room = pathlib.Path(request.fspath).parent.name
    if room in STRICT_DTYPE_ROOMS:
        with jax.numpy_dtype_promotion("strict"):
            yield
    else:
        yield


@pytest.fixture(autouse=True)
def _compiled_alike():
    """Undo what the command of a trial run chose for its own process."""
    yield
    jax.config.update("jax_disable_most_optimizations", FEW_OPTIMIZATIONS)


@pytest.fixture
def optimized():
    """Compile as users do for the length of one test."""
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", FEW_OPTIMIZATIONS)


@pytest.fixture
def x64():
    """Float64 for the length of one test."""
    with enable_x64():
        yield


@contextlib.contextmanager
def enable_x64():
    """Float64 inside the block, under any supported JAX."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def parity_dir() -> pathlib.Path:
    """Folder with ``recipe.py`` and one folder of stored vectors per system."""
    path = pathlib.Path(os.environ.get("HMR_PARITY_DIR", TESTS / "data" / "parity"))
    if not (path / "recipe.py").is_file():
        pytest.fail(f"no parity vectors at {path}: expected recipe.py there")
    return path


@pytest.fixture(scope="session")
def recipe(parity_dir):
    """The module that makes stand-in weights and bodies from names and seeds."""
    spec = importlib.util.spec_from_file_location("recipe", parity_dir / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["recipe"] = module
    spec.loader.exec_module(module)
    return module


def tiny_body_arrays(seed: int = 0, num_vertices: int = 60) -> dict[str, np.ndarray]:
    """Arrays of a random valid body in SMPL's file layout, 24 joints."""
    rng = np.random.default_rng(seed)
    spine_and_legs = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    parents = np.array([*spine_and_legs, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
    rest = np.zeros((24, 3))
    for joint in range(1, 24):
        rest[joint] = rest[parents[joint]] + 0.25 * rng.standard_normal(3)
    owner = np.concatenate([np.arange(24), rng.integers(0, 24, num_vertices - 24)])
    weights = np.zeros((num_vertices, 24))
    share = rng.uniform(0.5, 1.0, num_vertices)
    index = np.arange(num_vertices)
    np.add.at(weights, (index, owner), share)
    np.add.at(weights, (index, np.maximum(parents[owner], 0)), 1.0 - share)
    regressor = np.zeros((24, num_vertices))
    for joint in range(24):
        mine = np.flatnonzero(owner == joint)
        regressor[joint, mine] = 1.0 / len(mine)
    faces = rng.permuted(np.tile(np.arange(num_vertices), (40, 1)), axis=1)[:, :3]
    return {
        "v_template": rest[owner] + 0.05 * rng.standard_normal((num_vertices, 3)),
        "shapedirs": 0.02 * rng.standard_normal((num_vertices, 3, 10)),
        "posedirs": 0.002 * rng.standard_normal((num_vertices, 3, 207)),
        "J_regressor": regressor,
        "weights": weights,
        "f": faces.astype(np.uint32),
        "kintree_table": np.stack(
            [np.where(parents < 0, 2**32 - 1, parents), np.arange(24)]
        ).astype(np.uint32),
    }


@pytest.fixture(scope="session")
def body_arrays() -> dict[str, np.ndarray]:
    """The arrays behind ``tiny_body``, as a model file would hold them."""
    return tiny_body_arrays()


@pytest.fixture(scope="session")
def open_body():
    from hmr_jax.body.open_assets import load_open_body

    return load_open_body()


@pytest.fixture(scope="session")
def surface(open_body):
    """The open body's parts and texture coordinates."""
    from hmr_jax.body.surface import open_surface

    return open_surface(open_body)


@pytest.fixture(scope="session")
def face_body(tiny_body):
    """``tiny_body`` with a face, which 60 vertices do not tell."""
    extra = {**tiny_body.extra_joint_regressors, "coco_face_5": jax.numpy.eye(5, 60)}
    return dataclasses.replace(tiny_body, extra_joint_regressors=extra)


@pytest.fixture(scope="session")
def tiny_body(body_arrays):
    """A random valid ``BodyModel``: 24 joints, 60 vertices, 10 betas."""
    from hmr_jax.body.model import BodyModel

    rng = np.random.default_rng(7)
    h36m = rng.uniform(size=(17, body_arrays["v_template"].shape[0]))
    return BodyModel.create(
        template_m=body_arrays["v_template"],
        shape_dirs_m=body_arrays["shapedirs"],
        pose_dirs_m=body_arrays["posedirs"],
        joint_regressor=body_arrays["J_regressor"],
        skin_weights=body_arrays["weights"],
        faces=body_arrays["f"],
        parents=tuple(
            -1 if p == 2**32 - 1 else int(p) for p in body_arrays["kintree_table"][0]
        ),
        extra_joint_regressors={"h36m_17": h36m / h36m.sum(1, keepdims=True)},
    )
