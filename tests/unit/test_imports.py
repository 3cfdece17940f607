"""The package's rooms: arrows go one way, and nothing lies loose."""

from __future__ import annotations

import sys
from pathlib import Path

import grimp
import networkx
import pytest

PACKAGE = "spiritlm_plugin"
# From the top; rooms of one set do not know each other.
ROOMS = [
    {"demo", "registration", "serving"},
    {"training", "evaluation"},
    "inference",
    {"metrics", "decoders", "integrations"},
    "pretrained",
    "lobes",
    "dataio",
    "utils",
]
ROOMS_OF_DATA = [
    "stream",
    "corpus",
    "audio",
    "units",
    {"batching", "checkpoints"},
]


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(PACKAGE, cache_dir=None)


@pytest.mark.parametrize(
    ("rooms", "within"),
    [(ROOMS, PACKAGE), (ROOMS_OF_DATA, f"{PACKAGE}.dataio")],
)
def test_no_import_runs_upwards(graph, rooms, within):
    layers = [{room} if isinstance(room, str) else room for room in rooms]
    children = {
        child.rpartition(".")[2] for child in graph.find_children(within)
    }
    assert children == set.union(*layers)
    faults = graph.find_illegal_dependencies_for_layers(
        layers=layers, containers={within}
    )
    assert not [f"{f.importer} -> {f.imported}" for f in faults]


def test_no_circle(graph):
    arrows = networkx.DiGraph(
        (module, imported)
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
    )
    circles = networkx.strongly_connected_components(arrows)
    assert not [circle for circle in circles if len(circle) > 1]


def test_an_upward_import_would_be_seen(graph):
    graph.add_import(
        importer=f"{PACKAGE}.lobes.vocoder",
        imported=f"{PACKAGE}.inference.codec",
    )
    try:
        with pytest.raises(AssertionError, match=r"lobes -> .*inference"):
            test_no_import_runs_upwards(graph, ROOMS, PACKAGE)
    finally:
        graph.remove_import(
            importer=f"{PACKAGE}.lobes.vocoder",
            imported=f"{PACKAGE}.inference.codec",
        )


def test_nothing_loose_at_the_top():
    top = Path(sys.modules[PACKAGE].__file__).parent
    assert {path.name for path in top.glob("*.py")} == {
        "__init__.py",
        "registration.py",
    }


def test_recipes_are_files():
    root = Path(__file__).parents[2]
    links = [
        path for path in (root / "recipes").rglob("*") if path.is_symlink()
    ]
    assert not links
