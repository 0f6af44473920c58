# Makes the folders and tokenizer_files.json that test_tokenizer_files.c reads:
# small tokenizers in the formats that are not tokenizer.json, and the FNV-1a
# digests of the ids and texts that `sentencepiece` 0.2.3 and `tiktoken` 0.14.0
# give for the text of make_tokenizers.py.
import base64, json, os, tempfile
import sentencepiece, tiktoken
from make_tokenizers import HERE, PATTERNS, Random, digest, ids_digest, mixed_text, write

RULES = {"ﬁ": "fi", "²": "2", "Ａ": "A", "\u3000": " ", "\u00a0": " ", "e\u0301": "\u00e9", "①": "(1)", "\u200b": "", "ABC": "abc"}
SPM = {
    "spm_bpe": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                    user_defined_symbols=["<sep>", "ing", "▁▁"], vocab_size=560),
    "spm_unigram": dict(model_type="unigram", normalization_rule_tsv="rules.tsv", user_defined_symbols=["##", "th "], vocab_size=700),
    "spm_suffix": dict(model_type="unigram", byte_fallback=True, normalization_rule_name="identity", treat_whitespace_as_suffix=True,
                       split_digits=True, vocab_size=600),
}


def corpus():
    """Few kinds of characters, because each would be a piece."""
    text = "\n".join(mixed_text(100 + i, 3000) for i in range(12))
    text = "".join(c for c in text if c in " \n" or "!" <= c < "\x7f" or "\u0410" <= c < "\u0450" or c in "éßﬁ²①▁")
    return [line for line in text.split("\n") if 0 < len(line) < 2000]


def train_spm(name, options):
    folder = os.path.join(HERE, name)
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        with open("corpus.txt", "w", encoding="utf-8") as f:
            f.write("\n".join(corpus()))
        with open("rules.tsv", "w", encoding="utf-8") as f:
            for source, target in RULES.items():
                codes = lambda s: " ".join("%04X" % ord(c) for c in s)
                f.write("%s\t%s\n" % (codes(source), codes(target)))
        sentencepiece.SentencePieceTrainer.train(input="corpus.txt", model_prefix="small", character_coverage=1.0,
                                                 hard_vocab_limit=False, minloglevel=2, num_threads=1, **options)
        data = open("small.model", "rb").read()
    with open(os.path.join(folder, "tokenizer.model"), "wb") as f:
        f.write(data)
    return sentencepiece.SentencePieceProcessor(model_proto=data)


def byte_tokens():
    """Bytes of the tokens of byte_level.json, in the order of its merges."""
    tree = json.load(open(os.path.join(HERE, "byte_level.json"), encoding="utf-8"))["model"]
    shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    alphabet = {chr(b): b for b in shown}
    for n, b in enumerate(b for b in range(256) if b not in shown):
        alphabet[chr(256 + n)] = b
    tokens = [bytes([b]) for b in range(256)]
    for merge in tree["merges"]:
        tokens.append(bytes(alphabet[c] for part in merge for c in part))
    return list(dict.fromkeys(tokens))


def tekken(name, specials):
    tokens = byte_tokens()
    vocab = [dict(rank=i, token_bytes=base64.b64encode(t).decode(), token_str=None) for i, t in enumerate(tokens)]
    tree = dict(config=dict(pattern=PATTERNS["tekken"], num_vocab_tokens=len(tokens) + 50, default_vocab_size=len(tokens) - 40 + specials,
                            default_num_special_tokens=specials, version="v3"), vocab=vocab)
    os.makedirs(os.path.join(HERE, name), exist_ok=True)
    write(os.path.join(name, "tekken.json"), tree)
    ranks = {t: i for i, t in enumerate(tokens[:len(tokens) - 40])}
    return tiktoken.Encoding(name, pat_str=PATTERNS["tekken"], mergeable_ranks=ranks, special_tokens={})


def cl100k():
    """As many ranks as cl100k has, which is how a file is recognised; the test makes the same."""
    tokens = [bytes([a]) for a in range(256)] + [bytes([a, b]) for a in range(256) for b in range(256)]
    letters = b" etaoinshrdlucmfwypvbgkjqxz.,012345"
    triples = [bytes([a, b, c]) for a in letters for b in letters for c in letters]
    tokens += triples[:100256 - len(tokens)]
    return tiktoken.Encoding("cl100k", pat_str=PATTERNS["cl100k"], mergeable_ranks={t: i for i, t in enumerate(tokens)}, special_tokens={})


def entry(name, encode, decode, size, first):
    text, ids = mixed_text(1, 12000), []
    ids += encode(text)
    for i in range(200):
        ids += encode(mixed_text(1000 + i, 8))
    r, texts = Random(7), [decode(ids)]
    for _ in range(200):
        texts.append(decode([first + r.below(size - first) for _ in range(1 + r.below(30))]))
    return dict(name=name, ids=ids_digest(ids), count=len(ids), texts=digest("\n".join(texts).encode()), first=first, size=size)


def main():
    out = []
    for name, options in SPM.items():
        p = train_spm(name, options)
        out.append(entry(name, p.encode, p.decode, p.get_piece_size(), 3))
    e = tekken("tekken", 20)
    shift = lambda ids: [i + 20 for i in ids]
    out.append(entry("tekken", lambda t: shift(e.encode_ordinary(t)), lambda ids: e.decode([i - 20 for i in ids]), e.n_vocab + 20, 20))
    e = cl100k()
    out.append(entry("cl100k", e.encode_ordinary, e.decode, e.n_vocab, 0))
    write("tokenizer_files.json", out)


if __name__ == "__main__":
    main()
