"""What one would write without this package: what it is measured against.

Each network is offered in the forms that PyTorch has in public: as it is, with
its linear maps' weights laid out by oneDNN, with its convolutions in two
dimensions with the channels last. The fastest is taken, where it runs.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
import transformers
from hyperpyyaml import load_hyperpyyaml
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.mkldnn import MkldnnLinear

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.decoders.constrained import AllowedTokens
from spiritlm_plugin.inference import SpiritLM
from tests.benchmarks.machine import fastest

STREAMS = ("phonetic", "pitch", "style")


class PlainVocoder(nn.Module):
    """HiFi-GAN as it is usually written, weight norms fused."""

    def __init__(self, streams: int, embedding_dim: int, generator: dict):
        super().__init__()
        channels = generator["channels"]
        self.embeddings = nn.ModuleList(
            nn.Embedding(501, embedding_dim) for _ in range(streams)
        )
        self.input = nn.Conv1d(streams * embedding_dim, channels, 7, padding=3)
        self.upsamplers, self.blocks = nn.ModuleList(), nn.ModuleList()
        sizes = zip(generator["upsample_rates"], generator["upsample_kernels"])
        for rate, kernel in sizes:
            padding = (kernel - rate) // 2
            self.upsamplers.append(
                nn.ConvTranspose1d(
                    channels, channels // 2, kernel, rate, padding
                )
            )
            channels //= 2
            self.blocks.append(
                nn.ModuleList(
                    PlainBlock(channels, size, dilations)
                    for size, dilations in zip(
                        generator["resblock_kernels"],
                        generator["resblock_dilations"],
                    )
                )
            )
        self.output = nn.Conv1d(channels, 1, 7, padding=3)

    def forward(self, units: Tensor) -> Tensor:
        """Return a waveform of units, (batch, streams, frames)."""
        embedded = [e(units[:, i]) for i, e in enumerate(self.embeddings)]
        x = self.input(torch.cat(embedded, -1).transpose(1, 2))
        for upsampler, blocks in zip(self.upsamplers, self.blocks):
            x = upsampler(F.leaky_relu(x, 0.1))
            x = sum(block(x) for block in blocks) / len(blocks)
        return self.output(F.leaky_relu(x)).tanh()


class PlainBlock(nn.Module):
    """A residual block of HiFi-GAN."""

    def __init__(self, channels: int, kernel: int, dilations: list[int]):
        super().__init__()

        def conv(dilation):
            return nn.Conv1d(
                channels,
                channels,
                kernel,
                dilation=dilation,
                padding=(kernel - 1) * dilation // 2,
            )

        self.dilated = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.plain = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        for dilated, plain in zip(self.dilated, self.plain):
            y = plain(F.leaky_relu(dilated(F.leaky_relu(x, 0.1)), 0.1))
            x = x + y
        return x


class ChannelsLast(nn.Module):
    """A one-dimensional convolution, run in two with the channels last.

    Arguments
    ---------
    conv : nn.Conv1d or nn.ConvTranspose1d
        Its weights are shared.
    """

    def __init__(self, conv: nn.Conv1d | nn.ConvTranspose1d):
        super().__init__()
        self.conv = conv
        weight = conv.weight.detach().unsqueeze(2)
        self.weight = weight.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution does."""
        conv = self.conv
        x = x.unsqueeze(2)
        stride, padding = (1, *conv.stride), (0, *conv.padding)
        dilation = (1, *conv.dilation)
        if isinstance(conv, nn.ConvTranspose1d):
            more = (0, *conv.output_padding), conv.groups, dilation
            y = F.conv_transpose2d(
                x, self.weight, conv.bias, stride, padding, *more
            )
        else:
            more = dilation, conv.groups
            y = F.conv2d(x, self.weight, conv.bias, stride, padding, *more)
        return y.squeeze(2)


def forms(module: nn.Module) -> dict[str, nn.Module]:
    """Return the forms of a network that PyTorch offers."""
    found = {"as it is": module}
    if torch.backends.mkldnn.is_available():
        found["linear maps of oneDNN"] = _replaced(
            module, nn.Linear, lambda linear: MkldnnLinear(linear, torch.float)
        )
    found["channels last"] = _replaced(
        module, (nn.Conv1d, nn.ConvTranspose1d), ChannelsLast
    )
    return found


def _replaced(
    module: nn.Module, kinds: type | tuple, make: Callable
) -> nn.Module:
    """Return a copy with other modules in the place of some kinds."""
    module = deepcopy(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kinds):
                setattr(parent, name, make(child))
    return module


class Plain:
    """Tokenizers and vocoder for one file at a time.

    Arguments
    ---------
    hparams_file : Path
        For the sizes; the weights are others.
    device : str
        To run on.

    Attributes
    ----------
    chosen : dict
        The form of each network, where there is a choice.
    """

    def __init__(self, hparams_file: Path, device: str):
        import torchfcpe

        with open(hparams_file, encoding="utf-8") as file:
            # Without references: plain values.
            sizes = load_hyperpyyaml(_without_objects(file.read()))
        hubert = transformers.HubertConfig(**sizes["phonetic"]["hubert"])
        wav2vec2 = transformers.Wav2Vec2Config(**sizes["style"]["wav2vec2"])
        quantizer, vocoder = sizes["quantizer"], sizes["vocoder"]
        widths = [
            quantizer["input_dim"],
            *quantizer["hidden_dims"],
            quantizer["units"] + 1,
        ]
        self.hubert = _without_weight_norm(transformers.HubertModel(hubert))
        self.quantizer = nn.Sequential(
            *(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        )
        self.wav2vec2 = _without_weight_norm(
            transformers.Wav2Vec2Model(wav2vec2)
        )
        self.vocoder = PlainVocoder(
            4, vocoder["embedding_dim"], vocoder["generator"]
        )
        for module in vars(self).values():
            module.eval().to(device)
        self.device = device
        self.chosen: dict[str, str] = {}
        with contextlib.redirect_stdout(io.StringIO()):
            self.fcpe = torchfcpe.spawn_bundled_infer_model(device)

    def operations(self, wav: Tensor, units: Tensor) -> dict[str, int]:
        """Return how many floating-point operations each part's products take.

        Of the forms as they are: call it before `choose`.

        Arguments
        ---------
        wav, units : Tensor
            As of `choose`.
        """
        inputs = dict.fromkeys((*STREAMS, "expressive"), wav)
        found = {}
        for name, item in {**inputs, "vocode": units}.items():
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                getattr(self, name)(item)
            found[name] = counter.get_total_flops()
        return found

    def choose(self, wav: Tensor, units: Tensor) -> None:
        """Take the fastest form of each network for a recording and its units.

        Arguments
        ---------
        wav : Tensor
            Shape (samples,).
        units : Tensor
            As of `vocode`.
        """
        if self.device != "cpu":
            return
        inputs = {"hubert": wav, "wav2vec2": wav, "vocoder": units}
        for name, item in inputs.items():
            found = forms(getattr(self, name))
            runs = {
                form: lambda network=network, item=item: network(item[None])
                for form, network in found.items()
            }
            self.chosen[name] = fastest(runs)
            setattr(self, name, found[self.chosen[name]])

    def phonetic(self, wav: Tensor) -> Tensor:
        """Run HuBERT and the quantizer on (samples,)."""
        wav = wav.to(self.device)
        features = self.hubert(wav[None]).last_hidden_state
        return self.quantizer(features).argmax(-1).cpu()

    def style(self, wav: Tensor) -> Tensor:
        """Run wav2vec 2.0, which is nearly all of the style classifier."""
        wav = wav.to(self.device)
        wav = (wav - wav.mean()) / (wav.var(correction=0) + 1e-7).sqrt()
        return self.wav2vec2(wav[None]).last_hidden_state.cpu()

    def pitch(self, wav: Tensor) -> Tensor:
        """Run FCPE, which is nearly all of the pitch tokenizer."""
        f0 = self.fcpe.infer(
            wav[None, :, None].to(self.device),
            sr=SAMPLE_RATE,
            decoder_mode="local_argmax",
            threshold=0.05,
            f0_min=50,
            f0_max=1100,
            interp_uv=True,
            output_interp_target_length=len(wav) // 80 + 1,
        )
        return f0.cpu()

    def expressive(self, wav: Tensor) -> list[Tensor]:
        """Run all three."""
        return [getattr(self, stream)(wav) for stream in STREAMS]

    def vocode(self, units: Tensor) -> Tensor:
        """Run the vocoder on units at 25 Hz, (streams, frames)."""
        return self.vocoder(units[None].to(self.device)).cpu()

    @staticmethod
    def generate(lm: SpiritLM, ids: list[int], new_tokens: int) -> Tensor:
        """Sample speech with transformers alone."""
        language_model = lm.mods.language_model
        allowed = lm.vocabulary.allowed("speech", language_model.rows, False)
        return language_model.model.generate(
            torch.tensor([ids], device=lm.device),
            do_sample=True,
            temperature=0.8,
            top_p=0.95,
            max_new_tokens=new_tokens,
            pad_token_id=lm.vocabulary.eos_id,
            logits_processor=[AllowedTokens(allowed.to(lm.device))],
        )


def _without_weight_norm(
    model: transformers.HubertModel | transformers.Wav2Vec2Model,
) -> nn.Module:
    conv = model.encoder.pos_conv_embed.conv
    parametrize.remove_parametrizations(conv, "weight")
    return model


def _without_objects(yaml: str) -> str:
    """Turn the objects of a HyperPyYAML text into the arguments they take."""
    lines = []
    for line in yaml.splitlines():
        before, tag, _ = line.partition("!")
        if line.startswith("__") or "!ref" in line or " {}" in line:
            continue
        lines.append(before if tag else line)
    return "\n".join(lines)
