"""A unit vocoder: HiFi-GAN on speech units, and their durations."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from speechbrain import Stage
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import run_on_main
from torch import Tensor, nn
from typing_extensions import NotRequired

from spiritlm_plugin.dataio.audio.cropping import draw_start, read_piece
from spiritlm_plugin.dataio.audio.writing import write_wav
from spiritlm_plugin.dataio.corpus.stores import load_corpus
from spiritlm_plugin.dataio.units.frames import fill_blanks, unit_frames
from spiritlm_plugin.dataio.units.units import (
    PHONETIC_RATE,
    SAMPLE_RATE,
    SpeechUnits,
    unit_starts,
)
from spiritlm_plugin.integrations.parts import read_parts, save_part
from spiritlm_plugin.lobes.feature_loss import PhoneticFeatureLoss
from spiritlm_plugin.lobes.masking import frame_mask
from spiritlm_plugin.lobes.speech_tokenizer import SpeechTokenizer
from spiritlm_plugin.lobes.vocoder import UnitVocoder
from spiritlm_plugin.metrics.resynthesis import unit_agreement
from spiritlm_plugin.metrics.usage import units_of_labels
from spiritlm_plugin.training.trainer import (
    LoaderSettings,
    TrainingBrain,
    unwrap,
)
from spiritlm_plugin.training.vocoder_start import load_pretrained
from spiritlm_plugin.utils.files import safe_file_name
from spiritlm_plugin.utils.seeds import item_generator

logger = logging.getLogger(__name__)

_FIGURES = {
    "mel": "G_l1_spec_loss",
    "stft": "G_stft_loss_mg",
    "adversarial": "G_mse_fake_loss",
    "feature": "G_feat_match_loss",
}


class VocoderSettings(LoaderSettings):
    """What the training of a vocoder reads."""

    corpus_folder: str
    phonetic: str
    pitch: NotRequired[str]
    style: NotRequired[str]
    pretrained: str | None
    streams: list[str]
    multistyle: bool
    default_style: NotRequired[str]
    vocoder: dict[str, Any]
    discriminator: Any
    generator_loss: Any
    discriminator_loss: Any
    duration_weight: float
    phonetic_weight: float
    adversarial_step: int
    crop_frames: int
    merged_share: float
    valid_crop_frames: int
    sample_count: int
    generator_opt: Any
    discriminator_opt: Any
    discriminator_scheduler: Any


class Resynthesis(nn.Module):
    """Waveforms and log durations in one call, as DDP wants it."""

    def __init__(self, vocoder: UnitVocoder):
        super().__init__()
        self.vocoder = vocoder

    def forward(
        self,
        frames: dict[str, Tensor],
        lengths: Tensor,
        speakers: Tensor,
        styles: Tensor,
        runs: Tensor,
        run_lengths: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return waveforms, (batch, samples), and log durations of runs."""
        wavs, _ = self.vocoder(frames, lengths, speakers, styles)
        return wavs, self.vocoder.log_durations(runs, run_lengths)


class VocoderBrain(TrainingBrain):
    """Trains generator and discriminators in turn, and durations beside.

    ``sample_rows``, ``tokenizer`` and ``phonetic_loss`` are set after it is
    made.

    Source: Kong et al., "HiFi-GAN", 2020; Polyak et al., "Speech Resynthesis
    from Discrete Disentangled Self-Supervised Representations", 2021.
    """

    sample_rows: Sequence[Mapping[str, Any]]
    tokenizer: SpeechTokenizer
    phonetic_loss: PhoneticFeatureLoss

    def init_optimizers(self) -> None:
        """Make an optimizer of the generator, and one of its judges."""
        generator, discriminator = self.opt_class
        modules = self.modules
        self.optimizer = generator(modules.generator.parameters())
        self.judge_optimizer = discriminator(modules.discriminator.parameters())
        self.optimizers_dict = {
            "optimizer": self.optimizer,
            "judge_optimizer": self.judge_optimizer,
        }
        if self.checkpointer is not None:
            for name, optimizer in self.optimizers_dict.items():
                self.checkpointer.add_recoverable(name, optimizer)

    def compute_forward(
        self, batch: Any, stage: Stage
    ) -> tuple[Tensor, Tensor]:
        """Return waveforms, and the error of log durations."""
        batch = batch.to(self.device)
        frames, lengths = padded(batch.frames)
        runs, run_lengths = padded(batch.runs)
        wavs, log_durations = self.modules.generator(
            dict(zip(self.hparams.streams, frames.unbind(-1))),
            lengths,
            batch.speaker_id,
            batch.style_id,
            runs[..., 0],
            run_lengths,
        )
        errors = log_durations.float() - (runs[..., 1] + 1).log()
        mask = frame_mask(run_lengths, errors.shape[1])
        errors = errors.flatten() if mask is None else errors[mask]
        return wavs.float().unsqueeze(1), errors.square().mean()

    def compute_objectives(
        self,
        predictions: tuple[Tensor, Tensor],
        batch: Any,
        stage: Stage,
        **judged: Any,
    ) -> Tensor:
        """Return the loss of the generator and of the durations."""
        wavs, duration = predictions
        target = batch.sig.data.unsqueeze(1)
        losses = self.hparams.generator_loss(stage, wavs, target, **judged)
        self.record(
            duration=duration,
            **{n: losses[key] for n, key in _FIGURES.items() if key in losses},
        )
        loss = losses["G_loss"] + self.hparams.duration_weight * duration
        if self.hparams.phonetic_weight:
            phonetic = self.phonetic_loss(wavs.squeeze(1), target.squeeze(1))
            self.record(phonetic=phonetic)
            loss = loss + self.hparams.phonetic_weight * phonetic
        return loss

    def fit_batch(self, batch: Any) -> Tensor:
        """Train the discriminators, once it is time, then the generator."""
        self.on_fit_batch_start(batch, True)
        with self.training_ctx:
            predictions = self.compute_forward(batch, Stage.TRAIN)
        judged = {}
        if self.optimizer_step >= self.hparams.adversarial_step:
            wavs = predictions[0], batch.sig.data.unsqueeze(1)
            self.fit_discriminator(*wavs)
            judged = self.judge(*wavs)
        loss = self.compute_objectives(
            predictions, batch, Stage.TRAIN, **judged
        )
        self.update(loss, self.optimizer)
        self.optimizer_step += 1
        self.on_fit_batch_end(batch, predictions, loss, True)
        return loss.detach().cpu()

    def fit_discriminator(self, wavs: Tensor, target: Tensor) -> None:
        """Teach the discriminators to tell made from true waveforms."""
        both = torch.cat([wavs.detach(), target])
        with self.training_ctx:
            scores, _ = self.modules.discriminator(both)
        made, true = zip(*(score.float().chunk(2) for score in scores))
        losses = self.hparams.discriminator_loss(list(made), list(true))
        self.record(discriminator=losses["D_loss"])
        self.update(losses["D_loss"], self.judge_optimizer)
        self.hparams.discriminator_scheduler(self.judge_optimizer)

    def judge(self, wavs: Tensor, target: Tensor) -> dict[str, Any]:
        """Return what the discriminators, held still, say of waveforms."""
        # Not through DDP, which would average gradients that nobody wants.
        discriminator = unwrap(self.modules.discriminator)
        discriminator.requires_grad_(False)
        with self.training_ctx:
            scores, features = discriminator(wavs)
            with torch.no_grad():
                _, true_features = discriminator(target)
        discriminator.requires_grad_(True)
        return {
            "scores_fake": [score.float() for score in scores],
            "feats_fake": features,
            "feats_real": true_features,
        }

    def update(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Make a step, with gradients clipped."""
        self.scaler.scale(loss).backward()
        self.take_step(optimizer)
        self.scaler.update()

    def on_valid_end(self, stats: dict[str, float], epoch: int) -> None:
        """Let a few utterances be heard."""
        run_on_main(self.write_samples, args=[stats, epoch])

    def write_samples(self, stats: dict[str, float], epoch: int) -> None:
        """Resynthesize a few recordings and tokenize them again."""
        vocoder: UnitVocoder = unwrap(self.modules.generator).vocoder
        folder = Path(self.hparams.output_folder) / "samples"
        folder.mkdir(exist_ok=True)
        rows = self.sample_rows
        with torch.inference_mode():
            wavs = vocoder.synthesize(
                [row_units(row, self.hparams.streams) for row in rows],
                [vocoder.speaker_id(row["speaker"]) for row in rows],
            )
            originals = [
                read_piece(row["wav"], 0, len(wav))
                for row, wav in zip(rows, wavs)
            ]
            stats |= unit_agreement(
                self.tokenizer(originals), self.tokenizer(wavs)
            )
        for row, *pair in zip(rows, originals, wavs):
            for label, wav in zip(["original", f"epoch{epoch}"], pair):
                name = f"{row['utterance']}_{label}"
                path = folder / f"{safe_file_name(name)}.wav"
                write_wav(path, wav)
                if "tensorboard_logger" in self.hparams.__dict__:
                    self.hparams.tensorboard_logger.log_audio(
                        name, wav, SAMPLE_RATE
                    )


def padded(data: Any) -> tuple[Tensor, Tensor]:
    """Return a padded batch and the length of each item."""
    lengths = (data.lengths * data.data.shape[1]).round().long()
    return data.data, lengths


def row_units(row: Mapping[str, Any], streams: Sequence[str]) -> SpeechUnits:
    """Return the units of a row of a tokenized corpus."""
    return SpeechUnits(**{name: row[f"{name}_units"] for name in streams})


def unit_counts(folders: Mapping[str, str]) -> dict[str, int]:
    """Return how many units the parts of a tokenizer have."""
    arguments = read_parts(**folders).arguments
    arguments["phonetic"] = arguments["phonetic"]["quantizer"]
    return {f"{name}_units": a["units"] for name, a in arguments.items()}


def load_rows(
    hparams: VocoderSettings, parts: Mapping[str, str], split: str, blank: int
) -> datasets.Dataset:
    """Return the utterances of a tokenized corpus that have units.

    Arguments
    ---------
    hparams : VocoderSettings
        The recipe's.
    parts : dict
        `fingerprints` of the tokenizer.
    split : str
        Of the corpus.
    blank : int
        The unit that stands for none.
    """
    corpus = load_corpus(Path(hparams["corpus_folder"]) / split, parts)
    columns = ["utterance", "wav", "duration", "speaker", "style"]
    columns += [f"{name}_units" for name in parts]
    corpus = corpus.select_columns(columns)
    usable = [
        i
        for i, units in enumerate(corpus["phonetic_units"])
        if bool((units != blank).any())
    ]
    if len(usable) < len(corpus):
        missing = set(range(len(corpus))) - set(usable)
        names = corpus.select(sorted(missing))["utterance"]
        logger.warning("left out, without units: %s", ", ".join(names))
    return corpus.select(usable)


def make_dataset(
    hparams: VocoderSettings,
    rows: datasets.Dataset,
    vocoder: UnitVocoder,
    styles: Sequence[str],
    training: bool,
) -> DynamicItemDataset:
    """Return crops, in training new ones in each epoch.

    Arguments
    ---------
    hparams : VocoderSettings
        The recipe's.
    rows : datasets.Dataset
        Of `load_rows`.
    vocoder : UnitVocoder
        Names the speakers.
    styles : sequence of str
        Names of global styles, in order; empty without.
    training : bool
        Whether crops are those of training, or of validation.
    """
    crop_frames = hparams["crop_frames" if training else "valid_crop_frames"]
    hop, speakers = vocoder.hop, vocoder.speakers
    blank = len(vocoder.embeddings["phonetic"].get_parameter("weight"))
    epochs = hparams["epoch_counter"]

    @takes(
        "utterance", "wav", *(f"{name}_units" for name in hparams["streams"])
    )
    @provides("sig", "frames", "runs")
    def audio_and_units(
        utterance: str,
        wav: str,
        phonetic: Tensor,
        pitch: Tensor | None = None,
        style: Tensor | None = None,
    ) -> Iterator[Tensor]:
        units = SpeechUnits(fill_blanks(phonetic, blank), pitch, style)
        runs = units.phonetic.unique_consecutive(return_counts=True)
        epoch = epochs.current if training else None
        generator = item_generator(hparams["seed"], epoch, utterance)
        start = draw_start(len(units), crop_frames, generator)
        durations = None
        if float(torch.rand((), generator=generator)) < hparams["merged_share"]:
            # As a language model writes them: pitch changes with a unit.
            units, durations = units.merge().split(), runs[1]
        frames = torch.stack(list(unit_frames(units, durations).values()), 1)
        frames = frames[start : start + crop_frames]
        first = round(float(unit_starts(start, PHONETIC_RATE)) * SAMPLE_RATE)
        yield read_piece(wav, first, len(frames) * hop)
        yield frames
        yield torch.stack(runs, 1)

    @takes("speaker", "style")
    @provides("speaker_id", "style_id")
    def voice(speaker: Any, style: Any) -> Iterator[int]:
        yield speakers.index(speaker) if speakers else 0
        yield styles.index(style) if styles else 0

    keys = ["sig", "frames", "runs", "speaker_id", "style_id"]
    return DynamicItemDataset.from_arrow_dataset(
        rows, dynamic_items=[audio_and_units, voice], output_keys=keys
    )


def names_of(rows: datasets.Dataset, key: str) -> list[str]:
    """Return the names that the utterances have for it, in order."""
    return sorted(set(rows[key]) - {None})


def learn_speakers(
    vocoder: UnitVocoder,
    train_rows: datasets.Dataset,
    valid_rows: datasets.Dataset,
) -> None:
    """Learn who says which units, and log how often that is right."""
    vocoder.learn_speakers(train_rows["phonetic_units"], train_rows["speaker"])
    right = [
        vocoder.speaker_of(units) == vocoder.speaker_id(speaker)
        for units, speaker in zip(
            valid_rows["phonetic_units"], valid_rows["speaker"]
        )
    ]
    share = 100 * sum(right) / len(right)
    logger.info("speakers: %.1f%% are told by their units", share)


def new_vocoder(
    hparams: VocoderSettings,
    counts: Mapping[str, int],
    speakers: Sequence[str],
    styles: Sequence[str],
) -> tuple[UnitVocoder, dict[str, Any]]:
    """Return a vocoder to train, and its arguments.

    Arguments
    ---------
    hparams : VocoderSettings
        The recipe's.
    counts : dict
        Of `unit_counts`.
    speakers, styles : sequence of str
        That it learns; without global styles there are no styles.
    """
    arguments = {
        **hparams["vocoder"],
        **counts,
        "speakers": list(speakers),
        "recognizes_speakers": len(speakers) > 1,
        "global_styles": list(styles),
    }
    if styles and hparams["default_style"] not in styles:
        raise ValueError(
            f"no utterance has the style {hparams['default_style']!r}; there "
            f"are {', '.join(styles)}: name one of them, --default_style"
        )
    if styles:
        default = list(styles).index(hparams["default_style"])
        arguments["default_global_style"] = default
    vocoder = UnitVocoder(**arguments)
    if hparams["pretrained"]:
        load_pretrained(hparams["pretrained"], vocoder)
    return vocoder, arguments


def finish(
    hparams: VocoderSettings,
    vocoder: UnitVocoder,
    arguments: Mapping[str, Any],
    train_rows: datasets.Dataset,
    valid_rows: datasets.Dataset,
) -> None:
    """Learn what needs no gradients, and write the part.

    An Expressive vocoder learns which style units carry which style.

    Arguments
    ---------
    hparams : VocoderSettings
        The recipe's.
    vocoder, arguments
        Of `new_vocoder`; trained.
    train_rows, valid_rows : datasets.Dataset
        Of `load_rows`.
    """
    if vocoder.speaker_recognizer is not None:
        learn_speakers(vocoder, train_rows, valid_rows)
    shift = vocoder.eval().calibrate_durations(valid_rows["phonetic_units"])
    logger.info("durations: shifted by %.3f", shift)
    if "style" in vocoder.embeddings:
        units, labels = train_rows["style_units"], train_rows["style"]
        arguments = {**arguments, "styles": units_of_labels(units, labels)}
    folder = Path(hparams["output_folder"]) / "vocoder"
    save_part(folder, arguments, vocoder)
