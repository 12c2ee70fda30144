"""A model on disk: a folder as Hugging Face's tools read it, of JSON and safetensors, from which nothing is executed.

config.json             the architecture (`formats.solomonic`)
model.safetensors       the weights
tokenizer.json          of the tokenizers library, and tokenizer_config.json, generation_config.json
README.md               the model card
"""

import hashlib
import json
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from .. import __version__
from .._utils import jsontext
from .._utils.files import write
from .._utils.machine import check_fits
from ..data.tokenizer import Tokenizer
from ..model import LanguageModel, sizes
from .formats import SETTINGS, SINGLE, TOKENIZER, check_tokenizer, read_folder
from .formats.solomonic import PREFIX, describe
from .tensors import write_tensors

CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""The chat template, in Jinja, of a model that has none of its own."""

SPECIAL = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""Tokens of which tokenizer_config.json tells the names."""


def save(folder: str | Path, model: LanguageModel, tokenizer: Tokenizer, card: str | None = None) -> None:
    """Write the model to `folder`, made where it is not there; every file is replaced whole or stays as it was.

    ValueError for a tokenizer that has more tokens than the model.
    """
    folder = Path(folder)
    _fits(folder, model, tokenizer)
    settings = describe(model.config, tokenizer.end, tokenizer.ends) | {
        "dtype": str(model.embedding.weight.dtype).split(".")[-1]
    }
    name = tokenizer.end_name if tokenizer.end_name in tokenizer.specials else None  # whoever reads it makes it special
    tokens = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), name),
        "chat_template": CHAT,
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
    }
    ends = {name: settings[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    written = {"format": "pt", "solomonic": __version__, SETTINGS: jsontext.digest(settings["model"])}
    written[TOKENIZER] = jsontext.digest(jsontext.parse(tokenizer.to_json(), "tokenizer"))
    write_tensors(folder / SINGLE, _tensors(model), written)
    write(folder / "tokenizer.json", tokenizer.to_json())
    for name, content in (("tokenizer_config", tokens), ("generation_config", ends), ("config", settings)):
        write(folder / f"{name}.json", json.dumps(content, indent=2) + "\n")
    if card is not None:
        write(folder / "README.md", card)


def load(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[LanguageModel, Tokenizer]:
    """The model in `folder`, in evaluation mode, and its tokenizer; also of the other formats that `formats` reads.

    dtype None: as the file has it; the widest, where it has several. ValueError for a folder that is not whole or is
    damaged, whose parts do not fit each other, or whose state does not fit this machine's memory.
    """
    folder = Path(folder)
    config, tensors = read_folder(folder)
    check_fits(sizes(config)[1], f"{folder / 'config.json'}: the state of a text")
    tokenizer = Tokenizer.load(folder / "tokenizer.json", most=config.vocab_size)
    kinds = {tensor.dtype for tensor in tensors.values()}
    if dtype is None and len(kinds) > 1:
        dtype = reduce(torch.promote_types, kinds)
    with torch.device("meta"):
        model = LanguageModel(config)
    model.load_state_dict(tensors, assign=True)
    if config.tie_embeddings:
        model.head.weight = model.embedding.weight
    _fits(folder, model, tokenizer)
    check_tokenizer(folder)
    return model.to(device, dtype).eval(), tokenizer


def template(folder: str | Path) -> tuple[str, dict[str, str]]:
    """The chat template, in Jinja: the folder's own, or `CHAT`; and the special tokens of the folder.

    Those are by the names that templates use: `bos_token`, `eos_token` and the others that there are. ValueError for
    files that cannot be read, and for several templates without a default.
    """
    path = Path(folder) / "tokenizer_config.json"
    try:
        config = jsontext.read(path, dict, infinite=True) if path.exists() else {}
        own = path.with_name("chat_template.jinja")
        text = own.read_text(encoding="utf-8") if own.is_file() else config.get("chat_template")
        if isinstance(text, list):
            named = {t["name"]: t["template"] for t in text}
            if "default" not in named:
                raise ValueError(f"{path}: expected a template named default in chat_template, got {', '.join(named)}")
            text = named["default"]
        settings = {name: config.get(name) for name in SPECIAL}
        named_tokens = {name: t["content"] if isinstance(t, dict) else t for name, t in settings.items()}
    except UnicodeDecodeError as error:
        raise ValueError(f"{own}: expected a template in UTF-8, got what is none ({error})") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected the settings of a tokenizer, got what cannot be read ({error})") from None
    text = CHAT if text is None else text
    tokens: dict[str, str] = {name: t or "" for name, t in named_tokens.items() if t or name in SPECIAL[:2]}
    if not isinstance(text, str) or not all(isinstance(t, str) for t in tokens.values()):
        raise ValueError(f"{path}: expected chat_template, bos_token, eos_token and the other tokens to be text")
    return text, tokens


def fingerprint(model: LanguageModel) -> str:
    """32 hexadecimal digits that differ between models of different settings or weights."""
    digest = hashlib.blake2b(json.dumps(model.config.to_dict(), sort_keys=True).encode(), digest_size=16)
    for name, tensor in _tensors(model).items():
        digest.update(name.encode() + str(tensor.dtype).encode())
        digest.update(tensor.cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(model: LanguageModel) -> dict[str, Tensor]:
    tied = model.config.tie_embeddings
    named = model.state_dict().items()
    return {PREFIX + name: x.detach().contiguous() for name, x in named if not (tied and name == "head.weight")}


def _fits(folder: Path, model: LanguageModel, tokenizer: Tokenizer) -> None:
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{folder}: expected a tokenizer of at most {model.config.vocab_size} tokens, as the model has, "
            f"got one of {tokenizer.vocab_size}; use the one that the model was trained with"
        )


__all__ = ["CHAT", "fingerprint", "load", "save", "template"]
