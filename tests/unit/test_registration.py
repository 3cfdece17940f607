"""Tests of ``spiritlm_plugin.registration``, each in a fresh interpreter.

All but the last run in a made-up site-packages: the package's two start-up
modules and its ``.pth`` file as they are, with stand-ins for SpeechBrain and
for ``spiritlm_plugin.inference``, since the real ones take seconds to import.
"""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import spiritlm_plugin

PACKAGE = Path(spiritlm_plugin.__file__).parent
PTH = PACKAGE.parent / "spiritlm_plugin.pth"

ASR = """
__all__ = ["EncoderASR"]
class EncoderASR: pass
"""
INFERENCE = """
from . import *
from .ASR import *
"""
SPIRITLM = """
from speechbrain.inference import EncoderASR
class SpiritLM(EncoderASR): pass
"""


@pytest.fixture
def site(tmp_path):
    """A site-packages with the plugin and a small fake SpeechBrain."""
    (tmp_path / "speechbrain/inference").mkdir(parents=True)
    (tmp_path / "speechbrain/__init__.py").touch()
    (tmp_path / "speechbrain/inference/__init__.py").write_text(INFERENCE)
    (tmp_path / "speechbrain/inference/ASR.py").write_text(ASR)
    (tmp_path / "spiritlm_plugin").mkdir()
    for name in ("__init__.py", "registration.py"):
        shutil.copy(PACKAGE / name, tmp_path / "spiritlm_plugin")
    (tmp_path / "spiritlm_plugin/inference.py").write_text(SPIRITLM)
    if not PTH.exists():
        pytest.skip(f"{PTH} is only in a source tree")
    shutil.copy(PTH, tmp_path)
    return tmp_path


def run(site, code):
    """Run code in an interpreter that starts with this site-packages."""
    start = f"import site; site.addsitedir({str(site)!r})\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", start + code],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_import_needs_no_other_import(site):
    code = (
        "from speechbrain.inference import SpiritLM as s; print(s.__module__)"
    )
    assert run(site, code) == "spiritlm_plugin.inference"


def test_attribute_is_listed_and_lazy(site):
    run(
        site,
        """
import sys
import speechbrain.inference
assert "SpiritLM" in dir(speechbrain.inference)
assert "EncoderASR" in dir(speechbrain.inference)
assert "spiritlm_plugin.inference" not in sys.modules
speechbrain.inference.SpiritLM
assert "spiritlm_plugin.inference" in sys.modules
""",
    )


def test_start_up_imports_next_to_nothing(site):
    code = "import sys; print(*sorted(sys.modules))"
    (site / "spiritlm_plugin.pth").rename(site / "off")
    # Newer Pythons import a codec to read the first such file.
    (site / "other.pth").write_text("import sys\n")
    without = set(run(site, code).split())
    (site / "off").rename(site / "spiritlm_plugin.pth")
    more = set(run(site, code).split()) - without
    assert more == {"spiritlm_plugin", "spiritlm_plugin.registration"}


def test_unknown_names_stay_unknown(site):
    run(
        site,
        """
import speechbrain.inference
try:
    speechbrain.inference.Tapir
except AttributeError as error:
    assert "Tapir" in str(error) and error.name == "Tapir"
else:
    raise AssertionError
try:
    from speechbrain.inference import Tapir
except ImportError as error:
    assert "Tapir" in str(error)
else:
    raise AssertionError
""",
    )


def test_star_import(site):
    run(site, "from speechbrain.inference import *\nEncoderASR")


def test_the_module_keeps_its_own_hooks(site):
    with (site / "speechbrain/inference/__init__.py").open("a") as file:
        file.write(
            "def __getattr__(name):\n"
            "    if name == 'Okapi': return 'okapi'\n"
            "    raise AttributeError('own message')\n"
            "def __dir__(): return ['Okapi']\n"
        )
    run(
        site,
        """
import importlib
import speechbrain.inference as inference
for _ in range(2):
    assert inference.Okapi == "okapi"
    assert dir(inference) == ["Okapi", "SpiritLM"]
    assert inference.SpiritLM.__name__ == "SpiritLM"
    try:
        inference.Tapir
    except AttributeError as error:
        assert str(error) == "own message"
    importlib.reload(inference)
""",
    )


def test_the_modules_own_class_wins(site):
    with (site / "speechbrain/inference/__init__.py").open("a") as file:
        file.write("class SpiritLM: pass\n")
    code = (
        "from speechbrain.inference import SpiritLM as s; print(s.__module__)"
    )
    assert run(site, code) == "speechbrain.inference"


def test_reload(site):
    run(
        site,
        """
import importlib
import speechbrain.inference as inference
hook = inference.__getattr__
for _ in range(3):
    assert importlib.reload(inference) is inference
    assert inference.__getattr__ is not hook
    assert inference.__getattr__.spiritlm_plugin_hides is None
    assert inference.SpiritLM.__name__ == "SpiritLM"
""",
    )


def test_register_is_idempotent(site):
    run(
        site,
        """
import sys
import speechbrain.inference as inference
from spiritlm_plugin.registration import InferenceFinder, register
register()
register()
assert sum(isinstance(f, InferenceFinder) for f in sys.meta_path) == 1
assert inference.__getattr__.spiritlm_plugin_hides is None
""",
    )


def test_register_after_speechbrain(site):
    (site / "spiritlm_plugin.pth").unlink()
    run(
        site,
        """
import speechbrain.inference as inference
assert not hasattr(inference, "SpiritLM")
import spiritlm_plugin
assert inference.SpiritLM is spiritlm_plugin.SpiritLM
""",
    )


def test_find_spec_and_loader(site):
    run(
        site,
        """
import copy
import importlib.util
import inspect
import sys
spec = importlib.util.find_spec("speechbrain.inference")
assert spec.name == "speechbrain.inference"
assert spec.origin.endswith("__init__.py")
assert spec.submodule_search_locations
assert spec.loader.get_source(spec.name).strip().startswith("from")
copy.copy(spec.loader)
assert "speechbrain.inference" not in sys.modules
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
assert module.SpiritLM.__name__ == "SpiritLM"
from importlib.machinery import SourceFileLoader
assert type(module.__loader__) is type(module.__spec__.loader)
assert type(module.__loader__) is SourceFileLoader
assert "import" in inspect.getsource(module)
""",
    )


def test_finders_that_ask_all_finders(site):
    run(
        site,
        """
import sys
class Nosy:
    def find_spec(self, name, path=None, target=None):
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
sys.meta_path.insert(0, Nosy())
sys.meta_path.insert(2, Nosy.__new__(Nosy))
del sys.meta_path[0]
from speechbrain.inference import SpiritLM
""",
    )


@pytest.mark.parametrize("missing", ["speechbrain", "speechbrain/inference"])
def test_without_speechbrain(site, missing):
    shutil.rmtree(site / missing)
    run(
        site,
        """
import importlib.util
try:
    import speechbrain.inference
except ModuleNotFoundError as error:
    assert "speechbrain" in str(error)
else:
    raise AssertionError
try:
    assert importlib.util.find_spec("speechbrain.inference") is None
except ModuleNotFoundError:
    pass
""",
    )


def test_without_the_plugin(site):
    shutil.rmtree(site / "spiritlm_plugin")
    run(site, "import speechbrain.inference")


def test_a_failing_import_says_why(site):
    (site / "spiritlm_plugin/inference.py").write_text("import no_such_thing")
    run(
        site,
        """
try:
    from speechbrain.inference import SpiritLM
except ModuleNotFoundError as error:
    assert error.name == "no_such_thing"
else:
    raise AssertionError
""",
    )


def test_package_is_lazy(site):
    run(
        site,
        """
import spiritlm_plugin
assert spiritlm_plugin.__version__
assert set(spiritlm_plugin.__all__) <= set(dir(spiritlm_plugin))
assert spiritlm_plugin.SpiritLM.__name__ == "SpiritLM"
try:
    spiritlm_plugin.Tapir
except AttributeError:
    pass
else:
    raise AssertionError
""",
    )


def test_installed():
    """The real thing: the environment as it is, and the real SpeechBrain."""
    try:
        files = importlib.metadata.files("spiritlm_plugin")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("spiritlm_plugin is not installed")
    assert "spiritlm_plugin.pth" in map(str, files or [])
    code = (
        "import sys; print('torch' in sys.modules)\n"
        "from speechbrain.inference import SpiritLM\n"
        "print(SpiritLM.__module__.split('.')[0])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "spiritlm_plugin"]
