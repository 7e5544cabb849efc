"""Makes the files of this example anew: the folder `pipeline/` and golden.json.

Messages of a night shift go to the team that can help: mechanical, electrical or software. A tiny DistilBERT learns it
from made-up messages; nothing is downloaded. The golden rows are the answers of the pipeline itself.

    python3 -m venv /tmp/triage && /tmp/triage/bin/pip install -r requirements.txt
    /tmp/triage/bin/python train.py
"""

import json
import os
import random
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).parent
TEAMS = ("mechanical", "electrical", "software")
PLACES = ("press 4", "line 2", "the packer", "pump 7", "the oven", "conveyor 3", "the robot", "station 9")
SEEN = {
    "mechanical": (
        *("a bearing of {} is warm", "{} is loud and shakes", "oil drips from {}", "the belt of {} slips"),
        *("{} grinds when it starts", "a bolt of {} is loose", "the chain of {} is torn", "{} jams at noon"),
    ),
    "electrical": (
        *(
            "the fuse of {} blew",
            "{} lost one phase",
            "a cable of {} smells burnt",
            "the motor of {} draws too much current",
        ),
        *("sparks at the switch of {}", "the voltage at {} drops", "{} trips the breaker", "no power at {}"),
    ),
    "software": (
        *("the screen of {} is frozen", "{} does not take the new recipe", "an error on the display of {}"),
        *("the program of {} stopped", "{} lost its settings", "the counter of {} is wrong", "no login at {}"),
        *("{} is offline in the system",),
    ),
}
LENGTH = 24  # words of a message


def main() -> None:
    """Train, save, and answer the golden rows."""
    random.seed(4)
    torch.manual_seed(4)
    messages = [(line.format(place), team) for team, lines in SEEN.items() for line in lines for place in PLACES]
    random.shuffle(messages)
    words = tokenizer([text for text, _ in messages])
    model = trained(words, messages[24:])
    model.save_pretrained(HERE / "pipeline")
    words.save_pretrained(HERE / "pipeline")
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=words, device="cpu")
    right = sum(pipeline(text)[0]["label"] == team for text, team in messages[:24])
    print(f"{right} of 24 messages that it has not seen go to the right team")
    asked = [text for text, _ in messages[:12]] + ["hello", "the screen of the fuse is loose"]
    (HERE / "golden.json").write_text(golden_rows(pipeline, asked))


def tokenizer(texts: list[str]) -> transformers.PreTrainedTokenizerFast:
    """Words by number, most of them those of the messages."""
    known = sorted({word for text in texts for word in text.lower().split()})
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(marks + known)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=LENGTH, model_input_names=["input_ids", "attention_mask"],
        unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def trained(words: transformers.PreTrainedTokenizerFast, messages: list[tuple[str, str]]) -> torch.nn.Module:
    """A network of one layer, fitted to the messages."""
    config = transformers.DistilBertConfig(
        vocab_size=len(words), max_position_embeddings=LENGTH, dim=32, hidden_dim=64, n_layers=1, n_heads=2,
        id2label=dict(enumerate(TEAMS)), label2id={team: at for at, team in enumerate(TEAMS)},
    )  # fmt: skip
    model = transformers.DistilBertForSequenceClassification(config)
    batch = words([text for text, _ in messages], padding=True, return_tensors="pt")
    teams = torch.tensor([TEAMS.index(team) for _, team in messages])
    steps = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        steps.zero_grad()
        model(**batch, labels=teams).loss.backward()
        steps.step()
    return model.eval()


def golden_rows(pipeline: transformers.Pipeline, asked: list[str]) -> str:
    """Messages with the pipeline's answers, a row a line."""
    lines = []
    for text in asked:
        found = pipeline(text, top_k=3)
        lines.append(
            {
                "in.inputs": text,
                "in.top_k": 3,
                "out.label": [each["label"] for each in found],
                "out.score": [round(each["score"], 7) for each in found],
            }
        )
    return "[\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]\n"


if __name__ == "__main__":
    main()
