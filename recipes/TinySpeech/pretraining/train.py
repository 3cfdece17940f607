"""Train a language model on text, speech and both interleaved.

python train.py hparams/text.yaml --text_files "[FILE]" \
    --corpus_folders "[FOLDER]"
python train.py hparams/expressive.yaml --corpus_folders "[FOLDER]" \
    --text_files "[FILE]" --pretrained results/text/model/language_model

The corpora are what tokenize_corpus.py writes. Writes to the output folder the
model for SpiritLM.from_hparams (model/), in which language_model/ is a folder of
transformers, and what the model says after each epoch (samples/).
"""

import json
from itertools import islice
from pathlib import Path

import soundfile
from speechbrain.utils.distributed import if_main_process, run_on_main
from torch.utils.data import DataLoader

from spiritlm_plugin.dataio.corpus.unit_store import fingerprints
from spiritlm_plugin.dataio.stream.mixing import Mixture
from spiritlm_plugin.dataio.stream.packed_loader import PackedLoader
from spiritlm_plugin.dataio.stream.packing import labels_of
from spiritlm_plugin.dataio.stream.sources import (
    load_corpora,
    load_texts,
    make_sources,
)
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.inference import SpeechCodec, SpiritLM
from spiritlm_plugin.integrations.export_model import export_model
from spiritlm_plugin.lobes.adapters import add_adapters, merge_adapters
from spiritlm_plugin.lobes.language_model import new_language_model
from spiritlm_plugin.lobes.language_model_start import start_language_model
from spiritlm_plugin.metrics.modalities import ModalityFigures
from spiritlm_plugin.training.samples import Sampler
from spiritlm_plugin.training.sharding import ShardedState, full_state, shard
from spiritlm_plugin.training.trainer import TrainingBrain, unwrap
from spiritlm_plugin.utils.processes import rank_and_world_size
from spiritlm_plugin.utils.recipes import load_recipe, run


class LanguageModelBrain(TrainingBrain):
    def _wrap_distributed(self):
        """Share the weights out among the processes, or copy them to all."""
        if not self.hparams.fsdp:
            super()._wrap_distributed()
            return
        shard(self.modules.model, self.precision)

    def init_optimizers(self):
        """Make the optimizer; sharded weights are saved with its state."""
        model = self.modules.model
        weights = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = self.opt_class(weights)
        self.optimizers_dict = {"optimizer": self.optimizer}
        states = {"model": unwrap(model), "optimizer": self.optimizer}
        if self.hparams.fsdp:
            states = {"sharded": ShardedState(model, self.optimizer)}
        self.checkpointer.add_recoverables(states)

    def on_fit_batch_start(self, batch, should_step):
        super().on_fit_batch_start(batch, should_step)
        self.hparams.scheduler(self.optimizer, self.optimizer_step + 1)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """The rate is set before the step."""

    def compute_forward(self, batch, stage):
        ids = batch.ids.to(self.device, non_blocking=True)
        return self.modules.model(ids, positions=batch.positions)

    def compute_objectives(self, logits, batch, stage):
        """Return the loss, so that all tokens of a step count alike.

        Gradients are averaged over processes and batches, which hold
        different numbers of tokens.
        """
        labels = labels_of(batch.ids, batch.positions).to(self.device)
        loss, figures = self.figures(logits, labels)
        for name, (count, mean, accuracy) in figures.items():
            self.record(
                count,
                **{"loss": mean, f"loss_{name}": mean},
                **{f"accuracy_{name}": accuracy},
            )
        return loss * batch.shares / batch.step_targets

    def on_valid_end(self, stats, epoch):
        """Compare with unigrams, and let the model say something."""
        for name, entropy in self.entropies.items():
            stats[f"unigram_{name}"] = entropy
        if self.sampler is None:
            return
        speaking = self.speaking_model()
        stats |= self.sampler.judge(speaking)
        samples = self.sampler.sample(speaking)
        run_on_main(self.write_samples, args=[samples, epoch])

    def speaking_model(self):
        """Return the model as users call it."""
        modules = {
            "tokenizer": self.codec.mods.tokenizer,
            "vocoder": self.codec.mods.vocoder,
            "language_model": unwrap(self.modules.model),
        }
        return SpiritLM(
            modules,
            {},
            run_opts={"device": str(self.device)},
            freeze_params=False,
        )

    def write_samples(self, samples, epoch):
        folder = Path(self.hparams.output_folder) / "samples" / f"epoch{epoch}"
        folder.mkdir(parents=True, exist_ok=True)
        tensorboard = getattr(self.hparams, "tensorboard_logger", None)
        with open(folder / "samples.jsonl", "w", encoding="utf-8") as file:
            for sample in samples:
                wav = sample.pop("wav", None)
                if wav is not None and len(wav):
                    name = f"{sample['utterance']}_{sample['task']}"
                    sample["file"] = f"{name}.wav"
                    soundfile.write(folder / sample["file"], wav, SAMPLE_RATE)
                    if tensorboard is not None:
                        tensorboard.log_audio(name, wav, SAMPLE_RATE)
                file.write(json.dumps(sample, ensure_ascii=False) + "\n")


def make_language_model(hparams, units):
    """Start from a text model, or from nothing."""
    if hparams["pretrained"]:
        lm = start_language_model(
            hparams["pretrained"],
            units,
            hparams["rope_theta"],
            hparams["context"],
            random_weights=hparams["random_weights"],
        )
    else:
        texts = load_texts(hparams["text_files"])["text"]
        text = train_text_tokenizer(texts, hparams["text_pieces"])
        sizes = {"max_position_embeddings": hparams["context"]}
        lm = new_language_model(
            hparams["model"] | sizes, Vocabulary.extend(text, **units)
        )
    if hparams["row_tokens"] > lm.context:
        raise ValueError(
            f"row_tokens {hparams['row_tokens']} are more than the model's "
            f"context of {lm.context}; lower it, or raise context"
        )
    if hparams["activation_checkpointing"]:
        lm.model.gradient_checkpointing_enable()
    if hparams["lora"]["r"] and hparams["fsdp"]:
        raise ValueError(
            "lora and fsdp do not go together: adapters are for models that "
            "one GPU holds; choose one of them"
        )
    if hparams["lora"]["r"]:
        add_adapters(lm, hparams["lora"])
    return lm


def shares_of(hparams):
    """Return the share of each form of document."""
    mode, modes = hparams["mode"], hparams["shares"]
    if mode not in modes:
        raise ValueError(
            f"no such mode: {mode!r}; there are {', '.join(modes)}"
        )
    # An override can leave a form out by null, and by nothing else.
    return {form: share for form, share in modes[mode].items() if share}


def make_mixture(hparams, vocabulary, parts, split):
    """Return the stream of a split."""
    shares = shares_of(hparams)
    files = hparams[{"train": "text_files", "valid": "valid_text_files"}[split]]
    texts = load_texts(files) if files else None
    corpus = None
    if texts is None or set(shares) != {"text"}:
        corpus = load_corpora(hparams["corpus_folders"], split, parts)
    return Mixture(
        make_sources(shares, corpus, texts),
        vocabulary,
        hparams["documents"],
        hparams["row_tokens"],
        hparams["seed"],
        hparams["chunk_rows"],
    )


def make_loaders(hparams, run_opts, train_mixture, valid_mixture):
    """Return this process's share of the stream, and of its validation."""
    rank, size = rank_and_world_size()
    rows = hparams["step_rows"]
    accumulation = run_opts.get("grad_accumulation_factor", 1)
    loader = PackedLoader(
        train_mixture,
        rows,
        hparams["epoch_steps"],
        accumulation,
        hparams["workers"],
        rank,
        size,
    )
    valid = PackedLoader(
        valid_mixture,
        rows,
        hparams["valid_steps"],
        accumulation,
        rank=rank,
        world_size=size,
    )
    batches = list(islice(valid, len(valid)))
    return loader, DataLoader(batches, batch_size=None)


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    codec = SpeechCodec.from_hparams(hparams["codec"], hparams["codec_hparams"])
    lm = make_language_model(hparams, codec.mods.tokenizer.unit_counts())
    parts = fingerprints(codec.mods.tokenizer)
    mixtures = [
        make_mixture(hparams, lm.vocabulary, parts, split)
        for split in ("train", "valid")
    ]
    loader, valid_loader = make_loaders(hparams, run_opts, *mixtures)
    hparams["checkpointer"].add_recoverable("loader", loader)
    brain = LanguageModelBrain(
        modules={"model": lm},
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.codec = codec.to(brain.device)
    brain.figures = ModalityFigures(lm.vocabulary, hparams["loss_weights"])
    brain.entropies = brain.figures.unigram_entropy(
        labels_of(batch.ids, batch.positions) for batch in valid_loader
    )
    brain.sampler = None
    if hparams["sample_count"] and hparams["corpus_folders"]:
        rows = load_corpora(hparams["corpus_folders"], "valid", parts)
        counts = hparams["sample_count"], hparams["judged_count"]
        brain.sampler = Sampler(rows, shares_of(hparams), *counts)
    brain.fit(hparams["epoch_counter"], loader, valid_loader)
    state = full_state(lm) if hparams["fsdp"] else None
    merge_adapters(lm)
    if if_main_process():
        export_model(
            lm,
            Path(hparams["output_folder"]) / "model",
            hparams["codec"],
            hparams["codec_hparams"],
            state,
            hparams["export_dtype"],
        )


if __name__ == "__main__":
    run(main)
