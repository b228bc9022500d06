"""Methods as objectives: a batch in, a loss and logs out."""

from deepweave.objectives.adversarial import GAN
from deepweave.objectives.augment import Augment, CutMix, Mixup, Noise
from deepweave.objectives.capsule import MarginReconstruct
from deepweave.objectives.denoise import Denoise
from deepweave.objectives.likelihood import Likelihood
from deepweave.objectives.penalty import Penalize
from deepweave.objectives.posterior import Importance, ReverseKL
from deepweave.objectives.quantised import VQVAE
from deepweave.objectives.sharpness import SAM
from deepweave.objectives.supervised import Classify, Regress, Segment, Supervised, supervise
from deepweave.objectives.tokens import NextToken
from deepweave.objectives.variational import IWAE, VAE

__all__ = [
    "GAN",
    "IWAE",
    "SAM",
    "VAE",
    "VQVAE",
    "Augment",
    "Classify",
    "CutMix",
    "Denoise",
    "Importance",
    "Likelihood",
    "MarginReconstruct",
    "Mixup",
    "NextToken",
    "Noise",
    "Penalize",
    "Regress",
    "ReverseKL",
    "Segment",
    "Supervised",
    "supervise",
]
