"""Under which names bodies are published, and what the names say."""

import pathlib
import re

from hmr_jax.body.genders import GENDERS, gender_of_code

_SMPL_FILES = (
    "basicmodel_{letter}_lbs_10_207_0_v1.0.0",
    "basicmodel_{letter}_lbs_10_207_0_v1.1.0",
    "basicmodel_{gender}_lbs_10_207_0_v1.0.0",
    "basicmodel_{gender}_lbs_10_207_0_v1.1.0",
    "smpl_{gender}",
    "{gender}/model",
)
_SUFFIXES = (".pkl", ".npz")
_SUBFOLDERS = ("", "smpl", "mano", "models")


def find_body(folder: pathlib.Path, name: str | None, gender: str) -> pathlib.Path:
    """The model file of a folder, by its published names in any case.

    Args:
        folder: with the files, or with the folders of them.
        name: "mano_right" or "mano_left" asks for a hand and anything else for SMPL.
        gender: one of ``GENDERS``.

    Raises:
        FileNotFoundError: none is there; the error names some of what is.
    """
    asked = (name or "").lower()
    if asked.startswith("mano"):
        wanted = [f"mano_{'left' if 'left' in asked else 'right'}"]
    else:
        letter = {"neutral": "neutral", "male": "m", "female": "f"}[gender]
        wanted = [f.format(letter=letter, gender=gender) for f in _SMPL_FILES]
    files: dict[str, pathlib.Path] = {}
    for sub in _SUBFOLDERS:
        for inner in ("", *GENDERS):
            place = folder / sub / inner
            for file in sorted(place.iterdir()) if place.is_dir() else ():
                name_below = f"{inner}/{file.name}" if inner else file.name
                files.setdefault(name_below.lower(), file)
    for stem in wanted:
        for suffix in _SUFFIXES:
            if stem + suffix in files:
                return files[stem + suffix]
    raise FileNotFoundError(
        f"{folder}: expected one of {', '.join(wanted)} with suffix .pkl or .npz (any "
        f"case); found {', '.join(sorted(f.name for f in files.values())[:20]) or '-'}"
    )


def stated_gender(path: pathlib.Path) -> str | None:
    """The gender that a file's name states, or else the name of its folder.

    Args:
        path: such as ``SMPL_FEMALE.pkl``, ``basicModel_f_lbs_10_207_0_v1.0.0.pkl`` or
            ``smplh/female/model.npz``.

    Returns:
        One of ``GENDERS``; None where neither name states one.
    """
    words = re.split(r"[^a-z]+", path.stem.lower())
    stated = [word for word in words if word in (*GENDERS, "m", "f")]
    folder = path.absolute().parent.name.lower()
    stated += [word for word in re.split(r"[^a-z]+", folder) if word in GENDERS]
    return gender_of_code(stated[0]) if stated else None
