# Training, evaluation and work on corpora, on NVIDIA GPUs and without. PyTorch's
# wheels bring CUDA; the host brings the driver and NVIDIA's container toolkit.
#
#     docker build --tag spiritlm .
#     docker run --rm --gpus all --volume "$PWD:/work" spiritlm spiritlm-prepare --help
FROM python:3.12-slim-bookworm

# The compiler is for --compile.
RUN apt-get update \
    && apt-get install --no-install-recommends --yes g++=4:12.2.* \
    && rm -rf /var/lib/apt/lists/*

# Before the package, whose changes leave this layer as it is.
RUN pip install --no-cache-dir torch==2.11.0 torchaudio==2.11.0

WORKDIR /opt/spiritlm
COPY LICENSE README.md setup.cfg setup.py spiritlm_plugin.pth ./
COPY recipes/Expresso/pitch/extra_requirements.txt ./
COPY spiritlm_plugin spiritlm_plugin
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[eval,quality,ray,train,vad]" \
    -r extra_requirements.txt
COPY docs/slurm docs/slurm
COPY hparams hparams
COPY recipes recipes

# Any user may run it: with --user there is no home and no name.
RUN useradd --uid 1000 spiritlm
ENV HOME=/tmp \
    LOGNAME=spiritlm \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /work
CMD ["spiritlm-prepare", "--help"]
