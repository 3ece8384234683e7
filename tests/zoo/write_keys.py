"""Write `tests/zoo/keys/`: the names and shapes of the state of each model of torchvision that the zoo has as well.

    python -m tests.zoo.write_keys
"""

from __future__ import annotations

from numbanet import zoo
from tests.zoo.keys import FOLDER, keys_of
from tests.zoo.torchvision_peer import make_peer, peer_names


def main() -> None:
    for name in sorted(peer_names() & set(zoo.list_models())):
        (FOLDER / f"{name}.txt").write_text("\n".join(keys_of(make_peer(name).state_dict())) + "\n", encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
