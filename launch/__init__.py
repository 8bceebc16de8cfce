"""The command line.

Importing it checks that the project's other packages come from the same place. Python looks first in the folder that it
is started in, where a folder of the user's may have the name of one of them, such as `envs`.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("agile_ray", "envs", "learner", "rollout")


def _check_packages() -> None:
    own = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None:
            continue
        found = Path(next(iter(spec.submodule_search_locations or ()), None) or spec.origin or name).resolve()
        if found != own / name:
            print(
                f"agile-ray: {found}: Python takes it for the package {name} of agile-ray, which is in {own}; "
                "rename it, or start in another folder",
                file=sys.stderr,
            )
            raise SystemExit(2)


_check_packages()
