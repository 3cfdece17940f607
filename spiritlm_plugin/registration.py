"""Make ``from speechbrain.inference import SpiritLM`` work.

SpeechBrain has no registry of plugins, so this module adds the name. The
installed ``spiritlm_plugin.pth`` imports it whenever Python starts; it then
waits, as a finder on ``sys.meta_path``, for ``speechbrain.inference`` to be
imported, and gives that module a lazy attribute, ``SpiritLM``. Neither
SpeechBrain nor torch is imported before somebody asks for them.

Every interpreter of the environment pays for what is imported here, hence
nothing but what Python has loaded already.
"""

import _thread
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

MODULE = "speechbrain.inference"
ATTRIBUTE = "SpiritLM"


class InferenceLoader:
    """Execute a module with its own loader, then :func:`expose` SpiritLM in it.

    The module is left with its own loader as ``__loader__`` and
    ``__spec__.loader``: nothing shows that this one was here.

    Arguments
    ---------
    loader : importlib.abc.Loader
        The loader that the ordinary finders chose.
    """

    def __init__(self, loader: "Loader") -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> object:
        if name == "loader":  # in copy.copy, which skips __init__
            raise AttributeError(name)
        return getattr(self.loader, name)

    def exec_module(self, module: "ModuleType") -> None:
        """Execute the module, then expose SpiritLM in it."""
        assert module.__spec__ is not None  # there is one while it is loaded
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        expose(module)


class InferenceFinder:
    """Find ``speechbrain.inference`` as everybody else does, but hook its loader.

    It stays on ``sys.meta_path``, for ``importlib.reload``.
    """

    def __init__(self) -> None:
        self._searching: set[int] = set()

    def find_spec(
        self,
        fullname: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        """Return the spec of ``speechbrain.inference``, None for all others.

        The other finders are asked, in order. Those among them that ask all
        finders in their turn meet None here, not an endless recursion.
        """
        thread = _thread.get_ident()
        if fullname != MODULE or thread in self._searching:
            return None
        self._searching.add(thread)
        try:
            spec = _find_spec(fullname, path, target)
        finally:
            self._searching.discard(thread)
        if spec is None or spec.loader is None:
            return spec
        if hasattr(spec.loader, "exec_module"):
            # A loader by its methods; the base class is not loaded yet.
            spec.loader = InferenceLoader(spec.loader)  # type: ignore[assignment]
        return spec


def _find_spec(
    fullname: str,
    path: "Sequence[str] | None",
    target: "ModuleType | None",
) -> "ModuleSpec | None":
    """Ask every finder on ``sys.meta_path``; the first spec wins."""
    for finder in list(sys.meta_path):
        if hasattr(finder, "find_spec"):
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
    return None


def expose(module: "ModuleType") -> None:
    """Give a module a lazy attribute ``SpiritLM``.

    It is a module-level ``__getattr__`` (PEP 562), with a ``__dir__`` that
    lists the name. Those that the module has are kept, and asked for the rest.
    Calling this again, also after a reload of the module, changes nothing.

    Arguments
    ---------
    module : ModuleType
        The module, ``speechbrain.inference``.

    Example
    -------
    >>> from types import ModuleType
    >>> module = ModuleType("zoo")
    >>> expose(module)
    >>> "SpiritLM" in dir(module)
    True
    >>> module.Tapir
    Traceback (most recent call last):
    ...
    AttributeError: module 'zoo' has no attribute 'Tapir'
    """
    own_getattr = _own(module, "__getattr__")
    own_dir = _own(module, "__dir__")

    def __getattr__(name: str) -> object:
        if name == ATTRIBUTE:
            return getattr(load("spiritlm_plugin.inference"), name)
        if own_getattr is not None:
            return own_getattr(name)
        raise AttributeError(
            f"module {module.__name__!r} has no attribute {name!r}",
            name=name,
            obj=module,
        )

    def __dir__() -> list[str]:
        names = vars(module) if own_dir is None else own_dir()
        return sorted({*names, ATTRIBUTE})

    vars(__getattr__)["spiritlm_plugin_hides"] = own_getattr
    vars(__dir__)["spiritlm_plugin_hides"] = own_dir
    vars(module).update(__getattr__=__getattr__, __dir__=__dir__)


def load(name: str) -> "ModuleType":
    """Import a module, and whatever it needs, without collecting garbage.

    torch and transformers make millions of objects that stay; looking through
    them again and again takes a fifth of the time of importing them.

    Arguments
    ---------
    name : str
        The module's.

    Example
    -------
    >>> load("spiritlm_plugin.inference").SpiritLM.__name__
    'SpiritLM'
    """
    import gc
    from importlib import import_module

    collects = gc.isenabled()
    gc.disable()
    try:
        return import_module(name)
    finally:
        if collects:
            gc.enable()


def _own(module: "ModuleType", name: str) -> "Callable[..., Any] | None":
    """Return the module's own hook of that name, beneath ours if it is set."""
    hook = vars(module).get(name)
    return getattr(hook, "spiritlm_plugin_hides", hook)


def register() -> None:
    """Expose ``SpiritLM`` in ``speechbrain.inference``, now or once imported.

    Importing this module calls it; calling it again changes nothing.

    Example
    -------
    >>> import sys
    >>> register()
    >>> register()
    >>> sum(isinstance(f, InferenceFinder) for f in sys.meta_path)
    1
    """
    if not any(isinstance(f, InferenceFinder) for f in sys.meta_path):
        sys.meta_path.insert(0, InferenceFinder())
    module = sys.modules.get(MODULE)
    if module is not None:
        expose(module)


register()
