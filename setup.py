"""Packaging of todm_sb."""

from setuptools import find_packages, setup

DEMO = ["espeakng-loader>=0.2"]
SEARCH = ["optuna>=5,<6", "plotly>=6"]
POSTGRES = ["psycopg[binary]>=3.1"]
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "sherpa-onnx>=1.10"]

setup(
    name="todm_sb",
    version="0.1.0",
    description="Train one speech-recognition supernet, deploy many on-device models (SpeechBrain)",
    license="Apache-2.0",
    packages=find_packages(include=["todm_sb", "todm_sb.*"]),
    package_data={"todm_sb.web": ["page/*"]},
    python_requires=">=3.10",
    install_requires=[
        "hyperpyyaml>=1.2",
        "markdown>=3.4",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "ruamel.yaml>=0.17.28",
        "safetensors>=0.4.5",
        "sentencepiece>=0.2",
        "soundfile>=0.12",
        "speechbrain>=1.1,<2",
        "tensorboard>=2.16",
        "torch>=2.6",
        "torchaudio>=2.6",
        "tqdm>=4.66",
    ],
    entry_points={"console_scripts": ["todm-sb=todm_sb.cli:main"]},
    extras_require={
        # Speech synthesis for the mini corpus.
        "demo": DEMO,
        # Search for subnets; with its study in PostgreSQL.
        "search": SEARCH,
        "postgres": POSTGRES,
        # Export to ONNX, 8-bit models, and the recogniser for devices.
        "onnx": ONNX,
        "dev": [
            *DEMO,
            *SEARCH,
            *POSTGRES,
            *ONNX,
            # Text, tables and paths that nobody thought of.
            "hypothesis>=6.100",
            "import-linter>=2.5",
            "kaldi-native-fbank>=1.20",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            # Drives Chromium, where there is one.
            "selenium>=4.20",
        ],
    },
)
