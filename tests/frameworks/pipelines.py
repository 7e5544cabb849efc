"""Saves tiny Hugging Face pipelines with random weights, without a network: `python pipelines.py FOLDER [TASK…]`.

Each is made from configuration classes alone; tokenizers are made of a few words. Never imported by the tests: their
own interpreter has none of these libraries.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import torch
import transformers as t
from pipeline_answers import write_golden
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

WORDS = (
    "the line stopped at noon a bearing of press 4 is warm and it loud all good why did stop when because this about"
)
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>")
VOCABULARY = {
    word: at for at, word in enumerate(dict.fromkeys([*MARKS, *WORDS.split(), *"?.,abcdefghijklmnopqrstuvwxyz"]))
}
SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
}  # fmt: skip
LABELS = {0: "low", 1: "high"}


def tokenizer(*, plain: bool = True) -> Any:
    """Words by number, with BERT's frame; only BERT itself is told which sentence a word stands in."""
    made = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])],
    )
    usual = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    given = {**usual, "mask_token": "[MASK]", "bos_token": "<s>", "eos_token": "</s>"}
    names = ["input_ids", "attention_mask"] if plain else ["input_ids", "token_type_ids", "attention_mask"]
    return t.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, model_input_names=names, **given)


def bert(**more: Any) -> Any:
    return t.BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=64, **SMALL, **more)


def labelled(names: dict[int, str]) -> dict[str, Any]:
    return {"id2label": names, "label2id": {name: at for at, name in names.items()}, "num_labels": len(names)}


def save(folder: Path, *parts: Any) -> None:
    for part in parts:
        part.save_pretrained(folder)


def vit(**more: Any) -> Any:
    return t.ViTConfig(image_size=32, patch_size=16, **SMALL, **more)


def feature_extraction(folder: Path) -> None:
    save(folder, t.BertModel(bert()), tokenizer(plain=False))


def image_classification(folder: Path) -> None:
    processor = t.ViTImageProcessor(size={"height": 32, "width": 32})
    save(folder, t.ViTForImageClassification(vit(**labelled(LABELS))), processor)


def image_segmentation(folder: Path) -> None:
    config = t.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 8], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 1], mlp_ratios=[2, 2], decoder_hidden_size=8, **labelled(LABELS),
    )  # fmt: skip
    processor = t.SegformerImageProcessor(size={"height": 32, "width": 32})
    save(folder, t.SegformerForSemanticSegmentation(config), processor)


def image_to_text(folder: Path) -> None:
    words = t.GPT2Config(
        vocab_size=len(VOCABULARY), n_embd=16, n_layer=1, n_head=2, n_positions=512, add_cross_attention=True,
        bos_token_id=VOCABULARY["<s>"], eos_token_id=VOCABULARY["</s>"],
    )  # fmt: skip
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit(), words)
    config.decoder_start_token_id, config.pad_token_id = VOCABULARY["<s>"], VOCABULARY["[PAD]"]
    model = t.VisionEncoderDecoderModel(config)
    model.generation_config = t.GenerationConfig(
        max_new_tokens=6, decoder_start_token_id=VOCABULARY["<s>"], pad_token_id=VOCABULARY["[PAD]"],
        eos_token_id=VOCABULARY["</s>"], bos_token_id=VOCABULARY["<s>"],
    )  # fmt: skip
    save(folder, model, tokenizer(), t.ViTImageProcessor(size={"height": 32, "width": 32}))


def object_detection(folder: Path) -> None:
    config = t.YolosConfig(image_size=[32, 32], patch_size=16, num_detection_tokens=4, **SMALL, **labelled(LABELS))
    save(folder, t.YolosForObjectDetection(config), t.YolosImageProcessor(size={"height": 32, "width": 32}))


def question_answering(folder: Path) -> None:
    save(folder, t.BertForQuestionAnswering(bert()), tokenizer(plain=False))


def stable_diffusion_text_2_img(folder: Path) -> None:
    import diffusers

    network = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4,
    )  # fmt: skip
    decoder = diffusers.AutoencoderKL(
        block_out_channels=[8, 8], down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4, norm_num_groups=4, layers_per_block=1,
    )  # fmt: skip
    text = t.CLIPTextModel(
        t.CLIPTextConfig(
            vocab_size=len(VOCABULARY),
            max_position_embeddings=64,
            bos_token_id=VOCABULARY["<s>"],
            eos_token_id=VOCABULARY["</s>"],
            pad_token_id=VOCABULARY["[PAD]"],
            **SMALL,
        )
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=decoder, text_encoder=text, tokenizer=clip_tokenizer(folder), unet=network,
        scheduler=diffusers.DDIMScheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)


def clip_tokenizer(folder: Path) -> Any:
    """CLIP's own: pieces of words, each letter alone and at the end of a word."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{each}</w>" for each in letters)]
    kept = dict(zip(pieces[: len(VOCABULARY)], range(len(VOCABULARY)), strict=True))
    work = folder.parent / "clip-words"
    work.mkdir(exist_ok=True)
    (work / "vocab.json").write_text(json.dumps(kept))
    (work / "merges.txt").write_text("#version: 0.2\n")
    return t.CLIPTokenizer(
        str(work / "vocab.json"), str(work / "merges.txt"), unk_token="<|endoftext|>", model_max_length=64
    )


def generating(model: Any, **more: Any) -> Any:
    """Few words, and the same each time."""
    model.generation_config = t.GenerationConfig(
        max_new_tokens=6, do_sample=False, num_beams=1, pad_token_id=VOCABULARY["[PAD]"],
        eos_token_id=VOCABULARY["</s>"], **more,
    )  # fmt: skip
    return model


def summarization(folder: Path) -> None:
    config = t.T5Config(
        vocab_size=len(VOCABULARY), d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2,
        decoder_start_token_id=VOCABULARY["[PAD]"], pad_token_id=VOCABULARY["[PAD]"], eos_token_id=VOCABULARY["</s>"],
    )  # fmt: skip
    model = generating(t.T5ForConditionalGeneration(config), decoder_start_token_id=VOCABULARY["[PAD]"])
    save(folder, model, tokenizer())


def translation(folder: Path) -> None:
    config = t.BartConfig(
        vocab_size=len(VOCABULARY), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=512,
        pad_token_id=VOCABULARY["[PAD]"], bos_token_id=VOCABULARY["<s>"], eos_token_id=VOCABULARY["</s>"],
        decoder_start_token_id=VOCABULARY["</s>"], forced_eos_token_id=None,
    )  # fmt: skip
    model = generating(t.BartForConditionalGeneration(config), decoder_start_token_id=VOCABULARY["</s>"])
    save(folder, model, tokenizer())


def text_classification(folder: Path) -> None:
    save(folder, t.BertForSequenceClassification(bert(**labelled(LABELS))), tokenizer(plain=False))


def sentiment_analysis(folder: Path) -> None:
    text_classification(folder)


def zero_shot_classification(folder: Path) -> None:
    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    save(folder, t.BertForSequenceClassification(bert(**labelled(names))), tokenizer(plain=False))


def clip(kind: Any, text: Any, vision: Any) -> Any:
    words = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 16, **SMALL}
    marks = {"bos_token_id": 5, "eos_token_id": 6, "pad_token_id": 0}
    seen = {"image_size": 32, "patch_size": 16, **SMALL}
    return kind(text_config={**words, **marks}, vision_config=seen, projection_dim=16)


def zero_shot_image_classification(folder: Path) -> None:
    config = clip(t.CLIPConfig, t.CLIPTextConfig, t.CLIPVisionConfig)
    words = tokenizer()
    words.model_max_length = 16
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    save(folder, t.CLIPModel(config), words, t.CLIPImageProcessor(**size))


def zero_shot_object_detection(folder: Path) -> None:
    config = clip(t.OwlViTConfig, t.OwlViTTextConfig, t.OwlViTVisionConfig)
    words = tokenizer()
    words.model_max_length = 16
    save(folder, t.OwlViTForObjectDetection(config), words, t.OwlViTImageProcessor(size={"height": 32, "width": 32}))


def text_generation(folder: Path) -> None:
    config = t.GPT2Config(
        vocab_size=len(VOCABULARY), n_embd=16, n_layer=1, n_head=2, n_positions=512, bos_token_id=VOCABULARY["<s>"],
        eos_token_id=VOCABULARY["</s>"], pad_token_id=VOCABULARY["[PAD]"],
    )  # fmt: skip
    save(folder, generating(t.GPT2LMHeadModel(config)), tokenizer())


def automatic_speech_recognition(folder: Path) -> None:
    letters = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, **{chr(97 + at): 5 + at for at in range(26)}}
    work = folder.parent / "letters"
    work.mkdir(exist_ok=True)
    (work / "vocab.json").write_text(json.dumps(letters))
    words = t.Wav2Vec2CTCTokenizer(str(work / "vocab.json"))
    config = t.Wav2Vec2Config(
        vocab_size=len(letters), conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, num_feat_extract_layers=2, pad_token_id=0, **SMALL,
    )  # fmt: skip
    save(folder, t.Wav2Vec2ForCTC(config), words, t.Wav2Vec2FeatureExtractor())


def main() -> None:
    """Save those that are asked for, or all."""
    folder = Path(sys.argv[1])
    makers: dict[str, Callable[[Path], None]] = {
        make.__name__.replace("_", "-"): make for make in (
            feature_extraction, image_classification, image_segmentation, image_to_text, object_detection,
            question_answering, stable_diffusion_text_2_img, summarization, text_classification, sentiment_analysis,
            translation, zero_shot_classification, zero_shot_image_classification, zero_shot_object_detection,
            text_generation, automatic_speech_recognition,
        )
    }  # fmt: skip
    for name in sys.argv[2:] or makers:
        torch.manual_seed(0)
        (folder / name).mkdir()
        makers[name](folder / name)
        write_golden(name, folder / name)


if __name__ == "__main__":
    main()
