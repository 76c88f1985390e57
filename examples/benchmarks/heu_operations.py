"""Times HEU's Paillier and Okamoto–Uchiyama: `paillier.py` runs this in the Python that has sf-heu.

    PYTHON examples/benchmarks/heu_operations.py KEY_BITS ROUNDS COUNT SHARE_BITS

Prints one JSON object; nothing where there is no sf-heu. Seconds are processor time, and the process should
be given one core, since HEU makes as many threads as there are. Multipliers have a sign, half of them minus.
"""

from __future__ import annotations

import json
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

try:
    from heu import numpy as heu
    from heu import phe
except ImportError:
    sys.exit("sf-heu is not installed in this Python")

SIDE = 8
LIMIT = (1 << 15) - 1


def rate(amount: float, rounds: int, operation: Callable[[], Any]) -> float:
    """Returns how much of `amount` a second of processor time is worth, the median."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        operation()
        times.append(time.process_time() - started)
    return amount / statistics.median(times)


def signed(bits: int, *shape: int) -> np.ndarray:
    """Draws integers of so many bits and both signs."""
    drawn = [secrets.randbelow(1 << (bits + 1)) - (1 << bits) for _ in range(int(np.prod(shape)))]
    return np.array(drawn, object).reshape(shape)


def operations(schema: Any, key_bits: int, rounds: int, count: int, share_bits: int) -> dict[str, float]:  # noqa: ANN401
    """Times one scheme: values of 16 bits, one a ciphertext; and full plaintexts."""
    kit = heu.setup(schema, key_bits)
    encoder = phe.BigintEncoder(schema)
    encryptor, decryptor, evaluator = kit.encryptor(), kit.decryptor(), kit.evaluator()
    plaintext_bits = int(str(kit.public_key().plaintext_bound())).bit_length()
    values = kit.array(signed(15, 1, count), encoder)
    full = kit.array(signed(plaintext_bits - 2, 1, count), encoder)
    enciphered, filled = encryptor.encrypt(values), encryptor.encrypt(full)
    square = encryptor.encrypt(kit.array(signed(15, SIDE, SIDE), encoder))
    narrow, wide = (kit.array(signed(bits, SIDE, SIDE), encoder) for bits in (15, share_bits))
    found = decryptor.decrypt(evaluator.matmul(narrow, square)).to_numpy(encoder)
    assert (found == narrow.to_numpy(encoder) @ decryptor.decrypt(square).to_numpy(encoder)).all()
    return {
        "plaintext_bits": plaintext_bits,
        "encrypt": rate(count, rounds, lambda: encryptor.encrypt(values)),
        "add": rate(count, rounds, lambda: evaluator.add(enciphered, enciphered)),
        "multiply": rate(SIDE**3, rounds, lambda: evaluator.matmul(narrow, square)),
        "decrypt": rate(count, rounds, lambda: decryptor.decrypt(enciphered)),
        "encrypt_full": rate(count, rounds, lambda: encryptor.encrypt(full)),
        "decrypt_full": rate(count, rounds, lambda: decryptor.decrypt(filled)),
        "multiply_by_share": rate(SIDE**3, rounds, lambda: evaluator.matmul(wide, square)),
    }


def main() -> None:
    """Prints what was measured."""
    key_bits, rounds, count, share_bits = map(int, sys.argv[1:])
    schemes = {"Paillier": phe.SchemaType.ZPaillier, "Okamoto–Uchiyama": phe.SchemaType.OU}
    found = {
        name: operations(schema, key_bits, rounds, count, share_bits) for name, schema in schemes.items()
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
