"""The architectures whose export is proved: each made tiny from its configuration, with weights that say something."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

from artifact.task import Task
from models.checkpoint import quiet

IMAGE = ("height", "width")
TEXT = ("sequence",)
AUDIO = ("frames",)
MOST_TOKENS = 64
VOCABULARY = 99
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"


@dataclass(frozen=True, slots=True)
class Architecture:
    """A class of transformers and a configuration of it; `axes` are those that vary besides the batch.

    `image` is the size that an image processor beside the weights asks for. A model of `pairs` takes token types, one
    of `bytes` has a tokenizer of bytes.
    """

    name: str
    kind: str
    task: Task
    axes: tuple[str, ...]
    config: Mapping[str, Any] = field(repr=False)
    image: int | None = None
    pairs: bool = False
    bytes: bool = False


_SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
_TWO = {"num_hidden_layers": 2}
_NO_MARKS = {f"{name}_token_id": None for name in ("bos", "eos", "cls", "sep")} | {"pad_token_id": 0}
_BERT = {**_SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": MOST_TOKENS}
_ROBERTA = {**_BERT, "max_position_embeddings": MOST_TOKENS + 2}  # positions start after the padding's id, which is 1
_DISTILBERT = {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64}
_DECODER = {**_BERT, "num_key_value_heads": 2, "pad_token_id": 0, "use_cache": False}
_DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}
_VIT = {**_SIZES, "image_size": 32, "patch_size": 8}
_STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
_WAV2VEC2 = {
    **_SIZES,
    "vocab_size": 20,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 8),
    "conv_stride": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
_RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
_DETR = {
    "backbone_config": {**_RESNET, "layer_type": "basic", "out_features": ["stage4"]},
    "use_timm_backbone": False,
    "backbone": None,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 5,
}
_SEGFORMER = {
    **_STAGES,
    "num_encoder_blocks": 2,
    "sr_ratios": [4, 2],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16,
    "num_labels": 4,
}
_MOBILEBERT = {**_BERT, "embedding_size": 32, "intra_bottleneck_size": 32}
_T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": MOST_TOKENS}
_AST = {
    **_SIZES,
    "max_length": 64,
    "num_mel_bins": 16,
    "patch_size": 8,
    "frequency_stride": 8,
    "time_stride": 8,
    "num_labels": 4,
}

_CLASSIFY = Task.TEXT_CLASSIFICATION
_IMAGES = Task.IMAGE_CLASSIFICATION

ARCHITECTURES = (
    Architecture(
        "BERT", "BertForSequenceClassification", _CLASSIFY, TEXT, {**_BERT, **_TWO, "num_labels": 3}, pairs=True
    ),
    Architecture("RoBERTa", "RobertaForSequenceClassification", _CLASSIFY, TEXT, {**_ROBERTA, "num_labels": 1}),
    Architecture(
        "DistilBERT",
        "DistilBertForSequenceClassification",
        _CLASSIFY,
        TEXT,
        {**_DISTILBERT, "num_labels": 4, "problem_type": "multi_label_classification"},
    ),
    Architecture("ALBERT", "AlbertForSequenceClassification", _CLASSIFY, TEXT, {**_BERT, **_TWO, "embedding_size": 16}),
    Architecture("ELECTRA", "ElectraForSequenceClassification", _CLASSIFY, TEXT, {**_BERT, "embedding_size": 16}),
    Architecture(
        "DeBERTa-v2",
        "DebertaV2ForSequenceClassification",
        _CLASSIFY,
        TEXT,
        {**_BERT, **_DEBERTA},
    ),
    Architecture(
        "ModernBERT",
        "ModernBertForSequenceClassification",
        _CLASSIFY,
        TEXT,
        {**_BERT, **_TWO, **_NO_MARKS, "local_attention": 16, "global_attn_every_n_layers": 2},
    ),
    Architecture("MobileBERT", "MobileBertForSequenceClassification", _CLASSIFY, TEXT, _MOBILEBERT),
    Architecture(
        "SqueezeBERT", "SqueezeBertForSequenceClassification", _CLASSIFY, TEXT, {**_BERT, "embedding_size": 32}
    ),
    Architecture("ConvBERT", "ConvBertForSequenceClassification", _CLASSIFY, TEXT, {**_BERT, "embedding_size": 32}),
    Architecture(
        "XLNet",
        "XLNetForSequenceClassification",
        _CLASSIFY,
        TEXT,
        {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64},
    ),
    Architecture("GPT-2", "GPT2ForSequenceClassification", _CLASSIFY, TEXT, {**_GPT2, **_NO_MARKS, "use_cache": False}),
    Architecture(
        "Qwen2", "Qwen2ForSequenceClassification", _CLASSIFY, TEXT, {**_DECODER, "vocab_size": 300}, bytes=True
    ),
    Architecture("Llama", "LlamaForSequenceClassification", _CLASSIFY, TEXT, _DECODER),
    Architecture(
        "XLM-RoBERTa",
        "XLMRobertaForTokenClassification",
        Task.TOKEN_CLASSIFICATION,
        TEXT,
        {**_ROBERTA, "num_labels": 5},
    ),
    Architecture("BERT (answers)", "BertForQuestionAnswering", Task.QUESTION_ANSWERING, TEXT, _BERT, pairs=True),
    Architecture("BERT (masked)", "BertForMaskedLM", Task.FILL_MASK, TEXT, _BERT),
    Architecture("MPNet", "MPNetModel", Task.FEATURE_EXTRACTION, TEXT, _ROBERTA),
    Architecture("T5 encoder", "T5EncoderModel", Task.FEATURE_EXTRACTION, TEXT, _T5),
    Architecture("ViT", "ViTForImageClassification", _IMAGES, (), _VIT),
    Architecture("DeiT", "DeiTForImageClassification", _IMAGES, (), _VIT),
    Architecture("BEiT", "BeitForImageClassification", _IMAGES, IMAGE, _VIT),
    Architecture("DINOv2", "Dinov2ForImageClassification", _IMAGES, IMAGE, _VIT),
    Architecture(
        "ResNet",
        "ResNetForImageClassification",
        _IMAGES,
        IMAGE,
        {**_STAGES, "embedding_size": 8, "layer_type": "basic"},
        image=32,
    ),
    Architecture("ConvNeXt", "ConvNextForImageClassification", _IMAGES, IMAGE, {**_STAGES, "num_stages": 2}, image=32),
    Architecture(
        "MobileNetV2",
        "MobileNetV2ForImageClassification",
        _IMAGES,
        (),
        {"depth_multiplier": 0.25, "image_size": 64},
    ),
    Architecture(
        "RegNet",
        "RegNetForImageClassification",
        _IMAGES,
        IMAGE,
        {**_STAGES, "embedding_size": 8, "groups_width": 4},
        image=32,
    ),
    Architecture(
        "YOLOS",
        "YolosForObjectDetection",
        Task.OBJECT_DETECTION,
        IMAGE,
        {**_VIT, **_TWO, "image_size": [32, 32], "num_detection_tokens": 5},
    ),
    Architecture("DETR", "DetrForObjectDetection", Task.OBJECT_DETECTION, IMAGE, _DETR, image=64),
    Architecture("SegFormer", "SegformerForSemanticSegmentation", Task.IMAGE_SEGMENTATION, IMAGE, _SEGFORMER, image=32),
    Architecture("AST", "ASTForAudioClassification", Task.AUDIO_CLASSIFICATION, (), _AST),
    Architecture(
        "Wav2Vec2 (classes)", "Wav2Vec2ForSequenceClassification", Task.AUDIO_CLASSIFICATION, AUDIO, _WAV2VEC2
    ),
    Architecture("Wav2Vec2", "Wav2Vec2ForCTC", Task.SPEECH_RECOGNITION, AUDIO, _WAV2VEC2),
    Architecture("HuBERT", "HubertForCTC", Task.SPEECH_RECOGNITION, AUDIO, _WAV2VEC2),
)


def write_checkpoint(architecture: Architecture, folder: Path) -> Path:
    """Save a model of this architecture and what it needs beside its weights; the folder."""
    model = build(architecture.kind, architecture.config)
    with quiet():
        model.save_pretrained(folder)
    if model.main_input_name == "input_ids":
        write = write_bytes if architecture.bytes else write_letters
        write(folder, pairs=architecture.pairs, pad=model.config.pad_token_id)
    if architecture.image is not None:
        size = {"height": architecture.image, "width": architecture.image}
        (folder / "preprocessor_config.json").write_text(json.dumps({"size": size}))
    return folder


def build(kind: str, config: Mapping[str, Any], seed: int = 0) -> Any:
    """A model in eval mode with random weights of a size that neither vanishes nor explodes from layer to layer."""
    import torch
    import transformers

    model_class = getattr(transformers, kind)
    model = model_class(model_class.config_class(**config)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * 1.5 / sqrt(parameter[0].numel()))
            else:  # biases, and the scales and shifts of norms
                parameter.add_(noise * 0.2)
        norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        if norms:  # whose statistics are those of other images, so that the signal does not die
            model.train()
            for norm in norms:
                norm.momentum = None
            model(torch.randn((8, 3, 64, 64), generator=generator))
            model.eval()
    return model


def write_letters(folder: Path, *, pairs: bool = False, pad: int = 0, most: int = MOST_TOKENS) -> None:
    """Save a fast tokenizer of single letters; `pad` is the id of its padding."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL[1:], *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    pieces.insert(pad, SPECIAL[0])
    tokenizer = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=most,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", *(["token_type_ids"] if pairs else []), "attention_mask"],
    ).save_pretrained(folder)


def write_bytes(folder: Path, *, pairs: bool = False, pad: int = 0) -> None:
    """Save Qwen2's tokenizer without merges, so that each byte is a token; transformers takes no other for Qwen2."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    pieces = sorted(ByteLevel.alphabet())
    pieces.insert(pad, SPECIAL[0])
    Qwen2Tokenizer(
        vocab={piece: place for place, piece in enumerate(pieces)},
        merges=[],
        model_max_length=MOST_TOKENS,
        unk_token=SPECIAL[0],
        eos_token=SPECIAL[0],
        pad_token=SPECIAL[0],
    ).save_pretrained(folder)
