"""What is found out about utterances, in files of so many each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from glob import escape
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.corpus.manifests import write_manifest
from spiritlm_plugin.utils.files import read_json

_REMEDY = "delete it and start again, which makes it anew"


class ShardError(ValueError):
    """Shards that cannot be used."""


class JSONShards:
    """Shards ``<split>-00000.json`` and on, each there when it is complete.

    Arguments
    ---------
    folder : str or Path
        Of the shards; made if there is none.
    split : str
        Name that they begin with.
    names : iterable of str
        Of all utterances, in order.
    size : int
        Utterances in a shard.

    Raises
    ------
    ValueError
        If the size is not positive.

    Example
    -------
    >>> shards = JSONShards(tmp, "train", ["a", "b", "c"], 2)
    >>> shards.claim({"aligner": "1f"})
    >>> for path, names in shards.missing().items():
    ...     write_manifest({name: {"words": []} for name in names}, path)
    >>> sorted(path.name for path in tmp.iterdir())
    ['train-00000.json', 'train-00001.json', 'train.json']
    >>> list(shards.read())
    ['a', 'b', 'c']
    """

    def __init__(
        self, folder: str | Path, split: str, names: Iterable[str], size: int
    ):
        if size < 1:
            raise ValueError(f"a shard has at least 1 utterance, got {size}")
        self.folder = Path(folder)
        self.split = split
        names = list(names)
        self._parts = {
            self.folder / f"{split}-{start // size:05d}.json": names[
                start : start + size
            ]
            for start in range(0, len(names), size)
        }

    def claim(self, description: Mapping[str, Any]) -> None:
        """Write what the shards depend on, or compare with what is there.

        Removes what a run that was killed has not completed.

        Arguments
        ---------
        description : dict
            Strings and numbers by name.

        Raises
        ------
        ShardError
            If there are shards that depend on something else.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.split}.json"
        shards = f"{escape(self.split)}-?????.json"
        if path.is_file():
            remedy = f"delete it and the shards of {self.split} beside it"
            self._compare(read_json(path, remedy, ShardError), description)
        elif any(self.folder.glob(shards)):
            self._compare({}, description)
        else:
            write_manifest(description, path)
        for partial in self.folder.glob(f"{shards}.*.partial"):
            partial.unlink()

    def missing(self) -> dict[Path, list[str]]:
        """Return the shards that are not there, and their utterances.

        `write_manifest` writes them.
        """
        return {p: n for p, n in self._parts.items() if not p.exists()}

    def read(self) -> dict[str, Any]:
        """Return the rows of all utterances.

        Raises
        ------
        ShardError
            If a shard is missing, damaged or of other utterances.
        """
        rows: dict[str, Any] = {}
        for path, names in self._parts.items():
            if not path.is_file():
                raise ShardError(f"{path} is missing; start again to make it")
            shard = read_json(path, _REMEDY, ShardError)
            if list(shard) != names:
                raise ShardError(
                    f"{path} has other utterances than its manifest; {_REMEDY}"
                )
            for name, row in shard.items():
                if not isinstance(row, dict):
                    raise ShardError(
                        f"{path} says {row!r:.80} of {name}; {_REMEDY}"
                    )
            rows |= shard
        return rows

    def _compare(self, found: Mapping, description: Mapping) -> None:
        for name, value in description.items():
            if found.get(name) != value:
                raise ShardError(
                    f"{self.folder} holds shards of {self.split} with another "
                    f"{name} ({found.get(name)}, now {value}); delete them, "
                    "or name another output_folder"
                )
