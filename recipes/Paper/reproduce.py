"""Measure the tables of Spirit LM's paper, with Meta's weights, on real data.

python reproduce.py hparams/reproduce.yaml --checkpoints CHECKPOINTS --data_folder DATA

DATA holds the corpora as they are unpacked (see README.md); what is missing is
left out. Writes manifests (manifests/), what each evaluation writes into a folder of
its own, and report.md: the paper's rows, each with what was measured. Runs under
torchrun, and goes on where it was stopped. --items 20 for a first look.
"""

import gc
from itertools import groupby
from operator import attrgetter

from paper_prepare import CORPORA, find_corpora, prepare_corpus
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    infer_device,
)

from spiritlm_plugin.dataio.corpus.alignment import align_corpus
from spiritlm_plugin.dataio.corpus.manifests import (
    has_manifest,
    open_source,
)
from spiritlm_plugin.evaluation.loop import load_model
from spiritlm_plugin.evaluation.reproduction import (
    ALIGNED,
    TASKS,
    ReproductionSettings,
    manifests_of,
    model_settings,
    plan,
    report,
    with_manifests,
)
from spiritlm_plugin.lobes.ctc_aligner import CTCAligner
from spiritlm_plugin.utils.recipes import load_recipe, run

# Of each corpus what needs word times: the shots of TTS, the endings of stories.
ALIGN = {
    "LibriSpeech": ["train"],
    "StoryCloze": ["test_storycloze", "test_topic_storycloze"],
}


def prepare_all(hparams, corpora, device):
    """Write the manifests, with word times where an aligner is named."""
    data, manifests = hparams["data_folder"], manifests_of(hparams)
    for corpus in corpora:
        prepare_corpus(corpus, data, manifests)
    if not hparams["aligner"]:
        return
    aligner = CTCAligner(hparams["aligner"])
    for corpus in [c for c in corpora if c in ALIGN]:
        aligned = manifests / corpus / ALIGNED
        for split in ALIGN[corpus]:
            if has_manifest(manifests / corpus / split):
                align_corpus(
                    open_source(manifests / corpus / split),
                    aligned / split,
                    aligner,
                    root=manifests / corpus,
                    device=device,
                )
        prepare_corpus(corpus, data, manifests, aligned)


def main(arguments):
    hparams, run_opts = load_recipe(arguments, ReproductionSettings)
    evaluations, left_out = plan(hparams, find_corpora(hparams["data_folder"]))
    device = run_opts["device"] or infer_device()
    wanted = {evaluation.corpus for evaluation in evaluations}
    prepare_all(hparams, [c for c in CORPORA if c in wanted], device)
    evaluations, lacking = with_manifests(evaluations)
    left_out += lacking
    try:
        for model, found in groupby(evaluations, attrgetter("model")):
            lm = load_model(model_settings(hparams, model), run_opts)
            for evaluation in found:
                if if_main_process():
                    print(f"{evaluation.name}, {model}", flush=True)
                task = TASKS[evaluation.task]
                task.evaluate(evaluation.settings, run_opts, lm)
                ddp_barrier()
            del lm
            gc.collect()
    finally:
        # What is measured is told, also where an evaluation failed.
        if if_main_process():
            report(hparams, evaluations, left_out)


if __name__ == "__main__":
    run(main)
