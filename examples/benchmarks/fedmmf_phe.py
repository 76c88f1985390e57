"""A round of FedMF as one would write it with phe: a value a ciphertext, one by one.

`fedmmf.py` compares with it. Every participant encrypts its gradient [m, w], whoever sums adds ciphertexts,
and every participant decrypts the sum: as many operations as in the authors' own program (Chai, Wang, Chen
and Yang, arXiv 1906.05108), on the fixed-point integers of the other rows.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np
import phe.util
from phe import paillier


@dataclass(frozen=True)
class Costs:
    """Is the processor's seconds of one operation each."""

    encrypt: float
    add: float
    decrypt: float

    def path(self, k: int, said: int, read: int) -> float:
        """Returns the seconds of one participant, and of whoever sums.

        Args:
            k: how many participants there are.
            said: how many values each encrypts.
            read: how many it decrypts.
        """
        return said * self.encrypt + k * said * self.add + read * self.decrypt

    def whole(self, k: int, said: int, read: int) -> float:
        """Returns the seconds of all."""
        return k * (said * self.encrypt + said * self.add + read * self.decrypt)


def time_operations(bits: int, values: int, *, with_gmpy2: bool) -> Costs:
    """Goes through one participant's part of so many values: encrypts, adds twice, decrypts."""
    had = phe.util.HAVE_GMP
    phe.util.HAVE_GMP = with_gmpy2 and had
    try:
        public, private = paillier.generate_paillier_keypair(n_length=bits)
        numbers = np.random.default_rng(0).integers(-(2**30), 2**30, values).tolist()
        times = [time.process_time()]
        said = [public.encrypt(number) for number in numbers]
        times.append(time.process_time())
        total = [one + two + one for one, two in zip(said, said[::-1], strict=True)]
        times.append(time.process_time())
        read = [private.decrypt(one) for one in total]
        times.append(time.process_time())
        assert read == [2 * one + two for one, two in zip(numbers, numbers[::-1], strict=True)]
    finally:
        phe.util.HAVE_GMP = had
    encrypt, add, decrypt = (after - before for before, after in itertools.pairwise(times))
    return Costs(encrypt / values, add / (2 * values), decrypt / values)
