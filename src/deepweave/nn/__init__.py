"""Networks and their parts: any of them goes into any objective."""

from deepweave.nn.activations import Choice, Lambda, activation_layer
from deepweave.nn.aligner import Aligner, seq2seq
from deepweave.nn.attention import Attention, Cache
from deepweave.nn.autoencoder import decoder, gaussian_encoder
from deepweave.nn.bert import BERT, bert, minilm
from deepweave.nn.capsule import CapsNet, Capsules, PrimaryCapsules, capsnet
from deepweave.nn.convnet import convnet, lenet
from deepweave.nn.convolution import (
    Convolution1d,
    Convolution2d,
    Convolution3d,
    ConvolutionalNet,
    Mean,
    convolution,
)
from deepweave.nn.dense import Dense, Residual, mlp, shallow
from deepweave.nn.discriminator import discriminator
from deepweave.nn.dropout import Dropout
from deepweave.nn.encoder import transformer, vision_transformer
from deepweave.nn.generation import beam_search, choose, generate
from deepweave.nn.gnn import GNN, gnn
from deepweave.nn.graph import GCN, GIN, MPNN, RGCN, SAGE
from deepweave.nn.heat import Heat
from deepweave.nn.inception import inception_v3
from deepweave.nn.initialization import initialize, lsuv
from deepweave.nn.language import LanguageModel, language_model
from deepweave.nn.mobilenet import mobilenet_v2
from deepweave.nn.neighbours import GAT, GraphTransformer
from deepweave.nn.readout import GraphNorm, Pool
from deepweave.nn.recurrent import GRU, LSTM, RNN
from deepweave.nn.residual import resnet, resnet_small
from deepweave.nn.segmenter import Segmenter, segmenter
from deepweave.nn.sequence import Embedding, Reader, gru, lstm, rnn
from deepweave.nn.shortcuts import SqueezeExcitation, StochasticDepth
from deepweave.nn.summary import Summary, summary
from deepweave.nn.transformer import Block, Blocks, FeedForward
from deepweave.nn.translator import Translator, translator
from deepweave.nn.unet import denoiser, unet
from deepweave.nn.vgg import vgg

__all__ = [
    "BERT",
    "GAT",
    "GCN",
    "GIN",
    "GNN",
    "GRU",
    "LSTM",
    "MPNN",
    "RGCN",
    "RNN",
    "SAGE",
    "Aligner",
    "Attention",
    "Block",
    "Blocks",
    "Cache",
    "CapsNet",
    "Capsules",
    "Choice",
    "Convolution1d",
    "Convolution2d",
    "Convolution3d",
    "ConvolutionalNet",
    "Dense",
    "Dropout",
    "Embedding",
    "FeedForward",
    "GraphNorm",
    "GraphTransformer",
    "Heat",
    "Lambda",
    "LanguageModel",
    "Mean",
    "Pool",
    "PrimaryCapsules",
    "Reader",
    "Residual",
    "Segmenter",
    "SqueezeExcitation",
    "StochasticDepth",
    "Summary",
    "Translator",
    "activation_layer",
    "beam_search",
    "bert",
    "capsnet",
    "choose",
    "convnet",
    "convolution",
    "decoder",
    "denoiser",
    "discriminator",
    "gaussian_encoder",
    "generate",
    "gnn",
    "gru",
    "inception_v3",
    "initialize",
    "language_model",
    "lenet",
    "lstm",
    "lsuv",
    "minilm",
    "mlp",
    "mobilenet_v2",
    "resnet",
    "resnet_small",
    "rnn",
    "segmenter",
    "seq2seq",
    "shallow",
    "summary",
    "transformer",
    "translator",
    "unet",
    "vgg",
    "vision_transformer",
]
