# Makes vocab_files.json for test_tokenizer_vocab_files.c: folders of vocab.txt, or of
# vocab.json and merges.txt, and what `transformers` 5.24.0 makes of texts with them.
import json, os, tempfile
from transformers import AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
ALPHABET = [chr(b) for b in shown] + [chr(256 + n) for n in range(256 - len(shown))]
MERGES = ["t h", "th e", "Ġ the", "Ġ a", "# #", "i n", "in g", "Ã ©", "h e", "l l", "he ll", "hell o", "1 2", "Ġ w", "Ġ hello"]
WORDS = ["the", "##re", "hello", "wo", "##r", "##ld", "a", "##b", "##c", "é", "e", "##e", "世", "##界", "界", ",", ".", "don", "'", "t", "The", "##é", "caf", "##f", "1", "##2"]
TEXTS = ["", "the there", "Hello, world.", "  the  hello\n\nthe 1234", "café CAFÉ don't DON'T", "世界 a世b", "a <mask> b [MASK] c", "x</s><s>the<|endoftext|> hello[SEP]##", "12 ##ing\tthe\u00a0\u3000é", "<|im_start|>the<|startoftext|> a"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + WORDS


def bytes_vocab(specials, merges, suffix=""):
    tokens = specials[:2] + ALPHABET + [c + suffix for c in ALPHABET if suffix] + ["".join(m.split(" ")) for m in merges] + specials[2:]
    return {"vocab.json": json.dumps({t: i for i, t in enumerate(dict.fromkeys(tokens))}, ensure_ascii=False), "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n"}


CLIP_MERGES = ["t h", "th e</w>", "h e", "he l", "l o</w>", "hel lo</w>", "1 2</w>"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
FOLDERS = [
    ("BertTokenizer", {"vocab.txt": "\n".join(BERT) + "\n"}, {}),
    ("BertTokenizer", {"vocab.txt": "\r\n".join(BERT)}, {"do_lower_case": False, "tokenize_chinese_chars": False}),
    ("DistilBertTokenizer", {"vocab.txt": "\n".join(BERT)}, {"strip_accents": False}),
    ("MPNetTokenizer", {"vocab.txt": "\n".join(["<s>", "<pad>", "</s>", "<unk>", "[UNK]"] + WORDS + ["<mask>"])}, {}),
    ("GPT2Tokenizer", bytes_vocab(["<|endoftext|>"], MERGES), {}),
    ("GPT2Tokenizer", bytes_vocab(["<|endoftext|>"], MERGES), {"add_prefix_space": True}),
    ("RobertaTokenizer", bytes_vocab(ROBERTA, MERGES), {}),
    ("RobertaTokenizer", bytes_vocab(ROBERTA, MERGES), {"mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False, "special": True}}),
    ("CLIPTokenizer", bytes_vocab(["<|startoftext|>", "<|endoftext|>"], CLIP_MERGES, "</w>"), {}),
    ("Qwen2Tokenizer", bytes_vocab(["<|endoftext|>", "<|im_start|>"], MERGES), {"additional_special_tokens": ["<|im_start|>"]}),
]

entries = []
for name, files, settings in FOLDERS:
    files = dict(files, **{"tokenizer_config.json": json.dumps(dict(settings, tokenizer_class=name))})
    with tempfile.TemporaryDirectory() as folder:
        for file, text in files.items():
            with open(os.path.join(folder, file), "w", encoding="utf-8", newline="") as f:
                f.write(text)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer).__name__.startswith(name[:4]), type(tokenizer)
    cases = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        cases.append(dict(text=text, ids=ids, decoded=tokenizer.decode(ids, skip_special_tokens=True)))
    pair = tokenizer("the", "a the")
    entries.append(dict(name=name, files=files, cases=cases, pair=pair["input_ids"], mask=tokenizer.mask_token_id, eos=tokenizer.eos_token_id))
with open(os.path.join(HERE, "vocab_files.json"), "w", encoding="utf-8") as f:
    json.dump(entries, f, ensure_ascii=False, separators=(",", ":"))
    f.write("\n")
