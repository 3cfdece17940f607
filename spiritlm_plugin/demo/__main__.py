"""Run the demo: ``python -m spiritlm_plugin.demo``."""

from spiritlm_plugin.demo.tour import main

if __name__ == "__main__":
    main()
