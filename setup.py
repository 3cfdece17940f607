"""Ship ``spiritlm_plugin.pth``, to be installed at the root of site-packages.

All else is in ``setup.cfg``. Python runs the file's line at start-up, which is
how ``speechbrain.inference`` learns of ``SpiritLM`` without an import of the
plugin. It is part of the wheel, so ``pip uninstall`` removes it.
"""

from setuptools import setup
from setuptools.command.build_py import build_py

PTH = "spiritlm_plugin.pth"


class BuildPyAndPth(build_py):
    """Build the packages, with the ``.pth`` file beside them.

    An editable wheel (PEP 660) leaves out what is built; what is in the folder
    that ``install`` writes libraries to goes into it as it is.
    """

    def run(self):
        """Build the packages, then copy the file."""
        super().run()
        root = self.build_lib
        if self.editable_mode:
            root = self.get_finalized_command("install").install_lib
        self.copy_file(PTH, root)

    def get_source_files(self):
        """List the sources, for the source distribution."""
        return [*super().get_source_files(), PTH]


setup(cmdclass={"build_py": BuildPyAndPth})
