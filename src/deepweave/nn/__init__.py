"""Networks and their parts: any of them goes into any objective."""

from deepweave.nn.activations import Choice, Lambda, activation_layer
from deepweave.nn.aligner import Aligner, seq2seq
from deepweave.nn.attention import Attention, Cache
from deepweave.nn.autoencoder import decoder, gaussian_encoder
from deepweave.nn.autoregressive import Autoregressive, jacobi
from deepweave.nn.bert import BERT, bert, minilm
from deepweave.nn.bijection import (
    Bijection,
    Composition,
    Flatten,
    Permutation,
    Reversed,
    Squeeze,
)
from deepweave.nn.capsule import CapsNet, Capsules, PrimaryCapsules, capsnet
from deepweave.nn.continuous import Continuous
from deepweave.nn.convnet import convnet, lenet
from deepweave.nn.convolution import (
    Convolution1d,
    Convolution2d,
    Convolution3d,
    ConvolutionalNet,
    Mean,
    convolution,
)
from deepweave.nn.coupling import Coupling, ImageCoupling
from deepweave.nn.dense import Dense, Residual, mlp, shallow
from deepweave.nn.discriminator import discriminator
from deepweave.nn.dropout import Dropout
from deepweave.nn.elementwise import Dequantize, Logit, Softplus
from deepweave.nn.encoder import transformer, vision_transformer
from deepweave.nn.flow import Flow, InversionError, StandardNormal
from deepweave.nn.flows import (
    affine_flow,
    autoregressive_flow,
    continuous_flow,
    planar_flow,
    radial_flow,
    spline_flow,
)
from deepweave.nn.generation import beam_search, choose, generate
from deepweave.nn.glow import MultiScale, glow
from deepweave.nn.gnn import GNN, gnn
from deepweave.nn.graph import GCN, GIN, MPNN, RGCN, SAGE
from deepweave.nn.heat import Heat
from deepweave.nn.inception import inception_v3
from deepweave.nn.initialization import initialize, lsuv
from deepweave.nn.language import LanguageModel, language_model
from deepweave.nn.made import MADE, MaskedDense
from deepweave.nn.mixing import ActNorm, InvertibleConvolution, LUMixing
from deepweave.nn.mobilenet import mobilenet_v2
from deepweave.nn.neighbours import GAT, GraphTransformer
from deepweave.nn.planar import Planar, Radial
from deepweave.nn.readout import GraphNorm, Pool
from deepweave.nn.recurrent import GRU, LSTM, RNN
from deepweave.nn.residual import resnet, resnet_small
from deepweave.nn.segmenter import Segmenter, segmenter
from deepweave.nn.sequence import Embedding, Reader, gru, lstm, rnn
from deepweave.nn.shortcuts import SqueezeExcitation, StochasticDepth
from deepweave.nn.summary import Summary, summary
from deepweave.nn.transformer import Block, Blocks, FeedForward
from deepweave.nn.translator import Translator, translator
from deepweave.nn.unet import Told, denoiser, unet
from deepweave.nn.vgg import vgg

__all__ = [
    "BERT",
    "GAT",
    "GCN",
    "GIN",
    "GNN",
    "GRU",
    "LSTM",
    "MADE",
    "MPNN",
    "RGCN",
    "RNN",
    "SAGE",
    "ActNorm",
    "Aligner",
    "Attention",
    "Autoregressive",
    "Bijection",
    "Block",
    "Blocks",
    "Cache",
    "CapsNet",
    "Capsules",
    "Choice",
    "Composition",
    "Continuous",
    "Convolution1d",
    "Convolution2d",
    "Convolution3d",
    "ConvolutionalNet",
    "Coupling",
    "Dense",
    "Dequantize",
    "Dropout",
    "Embedding",
    "FeedForward",
    "Flatten",
    "Flow",
    "GraphNorm",
    "GraphTransformer",
    "Heat",
    "ImageCoupling",
    "InversionError",
    "InvertibleConvolution",
    "LUMixing",
    "Lambda",
    "LanguageModel",
    "Logit",
    "MaskedDense",
    "Mean",
    "MultiScale",
    "Permutation",
    "Planar",
    "Pool",
    "PrimaryCapsules",
    "Radial",
    "Reader",
    "Residual",
    "Reversed",
    "Segmenter",
    "Softplus",
    "Squeeze",
    "SqueezeExcitation",
    "StandardNormal",
    "StochasticDepth",
    "Summary",
    "Told",
    "Translator",
    "activation_layer",
    "affine_flow",
    "autoregressive_flow",
    "beam_search",
    "bert",
    "capsnet",
    "choose",
    "continuous_flow",
    "convnet",
    "convolution",
    "decoder",
    "denoiser",
    "discriminator",
    "gaussian_encoder",
    "generate",
    "glow",
    "gnn",
    "gru",
    "inception_v3",
    "initialize",
    "jacobi",
    "language_model",
    "lenet",
    "lstm",
    "lsuv",
    "minilm",
    "mlp",
    "mobilenet_v2",
    "planar_flow",
    "radial_flow",
    "resnet",
    "resnet_small",
    "rnn",
    "segmenter",
    "seq2seq",
    "shallow",
    "spline_flow",
    "summary",
    "transformer",
    "translator",
    "unet",
    "vgg",
    "vision_transformer",
]
