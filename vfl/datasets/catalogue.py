"""The public data sets that go by a name: where they come from, under which terms, and who holds what.

Each is cut between its parties as the literature does, or as such a table would be spread in practice.
Every column of an original is at exactly one party, or named in `left_out`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vfl.data.text import did_you_mean
from vfl.datasets import parsing
from vfl.datasets.originals import Original
from vfl.datasets.parsing import Columns, Contents
from vfl.datasets.ratings import MOVIE_COLUMNS, catalogues, make_ratings, split_ratings
from vfl.datasets.vertical import split_people
from vfl.errors import DataError

Split = Callable[[Columns, Mapping[str, Sequence[str]], float, int], dict[str, Columns]]


@dataclass(frozen=True)
class Party:
    """Is one party's part of a data set.

    Attributes:
        columns: all that its file holds beside the id, in order.
        label: the one of them to predict, at the label party.
        categorical: those that are categories, numbers standing for categories among them.
        missing: whether some of its values are missing.
        pattern: a pattern for its numeric columns where naming each would be long.
        aside: those that are neither features nor the label.
    """

    name: str
    columns: tuple[str, ...]
    label: str = ""
    categorical: tuple[str, ...] = ()
    missing: bool = False
    pattern: str = ""
    aside: tuple[str, ...] = ()

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names its numeric features."""
        others = {self.label, *self.categorical, *self.aside}
        return tuple(column for column in self.columns if column not in others)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Is a public data set and how it is cut.

    Attributes:
        rows: how many people, images or ratings it has.
        what: what it is about, in a few words.
        ids: where its ids come from.
        origin: its publisher's page.
        originals: the files that it is read from; none where it comes with something else.
        parse: turns them into one table.
        split: cuts that table between the parties.
        left_out: columns of the originals that no party gets, each with the reason.
        comes_with: where it comes from without originals.
        shares_rows: whether the parties hold columns of the same rows; else they hold ratings.
    """

    name: str
    rows: int
    what: str
    licence: str
    citation: str
    origin: str
    ids: str
    parties: tuple[Party, ...]
    parse: Callable[[Contents], Columns]
    originals: tuple[Original, ...] = ()
    split: Split = split_people
    left_out: tuple[tuple[str, str], ...] = ()
    comes_with: str = "scikit-learn"
    shares_rows: bool = True

    def files(self) -> list[str]:
        """Names its files, without their endings: one a party, and of ratings the catalogues of items."""
        names = [party.name for party in self.parties]
        return names if self.shares_rows else [*names, *catalogues(names)]

    def columns(self, file: str) -> list[str]:
        """Names the columns of a file, in order.

        Raises:
            DataError: there is no such file, which means no such party.
        """
        for party in self.parties:
            if party.name == file:
                return ["id", *party.columns] if self.shares_rows else list(party.columns)
        if file in self.files():
            return list(MOVIE_COLUMNS)
        hint = did_you_mean(file, self.files())
        raise DataError(f"dataset:{self.name}/{file}: there is no such party in it: {hint}")


def find_dataset(name: str) -> Dataset:
    """Finds a data set by its name.

    Raises:
        DataError: there is none of that name.
    """
    if name not in DATASETS:
        raise DataError(f"{name}: there is no such data set: {did_you_mean(name, list(DATASETS))}")
    return DATASETS[name]


_SKLEARN: Final = "comes with scikit-learn"
_BY_PLACE: Final = "made from the place in the original"
_CC_BY: Final = "CC BY 4.0"

_STATISTICS: Final = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points",
    "symmetry", "fractal dimension",
)  # fmt: skip

_BREAST_CANCER: Final = Dataset(
    name="breast-cancer",
    rows=569,
    what="tumours: 30 measurements of cell nuclei, and whether the tumour is malignant",
    licence=_CC_BY,
    citation="Wolberg, Mangasarian, Street and Street (1993). Breast Cancer Wisconsin (Diagnostic). "
    "UCI Machine Learning Repository. https://doi.org/10.24432/C5DW2B",
    origin=f"https://archive.ics.uci.edu/dataset/17; {_SKLEARN}",
    ids=_BY_PLACE,
    parties=(
        Party("mean", tuple(f"mean {name}" for name in _STATISTICS), pattern="mean *"),
        Party("worst", tuple(f"worst {name}" for name in _STATISTICS), pattern="worst *"),
        Party(
            "spread",
            (*(f"{name} error" for name in _STATISTICS), "diagnosis"),
            label="diagnosis",
            pattern="* error",
        ),
    ),
    parse=parsing.parse_breast_cancer,
)

_DIGITS: Final = Dataset(
    name="digits",
    rows=1797,
    what="handwritten digits: images of 8 × 8 pixels, and which digit each shows",
    licence=_CC_BY,
    citation="Alpaydin and Kaynak (1998). Optical Recognition of Handwritten Digits. "
    "UCI Machine Learning Repository. https://doi.org/10.24432/C50P49",
    origin=f"https://archive.ics.uci.edu/dataset/80; {_SKLEARN}",
    ids=_BY_PLACE,
    parties=(
        Party("left", tuple(f"pixel_{row}_{col}" for row in range(8) for col in range(4)), pattern="pixel_*"),
        Party(
            "right", tuple(f"pixel_{row}_{col}" for row in range(8) for col in range(4, 8)), pattern="pixel_*"
        ),
        Party("reader", ("digit",), label="digit"),
    ),
    parse=parsing.parse_digits,
)

_CREDIT: Final = Dataset(
    name="credit-default",
    rows=30_000,
    what="clients of a bank in Taiwan in 2005, and whether each missed the next payment",
    licence=_CC_BY,
    citation="Yeh (2009). Default of Credit Card Clients. UCI Machine Learning Repository. "
    "https://doi.org/10.24432/C55S3H",
    origin="https://archive.ics.uci.edu/dataset/350",
    ids="its own ID",
    parties=(
        Party(
            "bank",
            ("LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE", "default"),
            label="default",
            categorical=("SEX", "EDUCATION", "MARRIAGE"),
        ),
        Party("bureau", tuple(f"PAY_{month}" for month in (0, 2, 3, 4, 5, 6))),
        Party(
            "payments",
            (*(f"BILL_AMT{month}" for month in range(1, 7)), *(f"PAY_AMT{month}" for month in range(1, 7))),
        ),
    ),
    parse=parsing.parse_credit,
    originals=(
        Original(
            "UCI_Credit_Card.csv",
            # UCI itself serves an .xls in a zip; this is the same table as CSV, at a fixed commit.
            "https://raw.githubusercontent.com/vlada270/ML_coursework-/"
            "7b082274e1989fda975b8fb500b50297dc9ecc51/UCI_Credit_Card.csv",
            ("a0f0ab49d6326671d6cd83be5c88dcf18007025fe9a53ecd699119c871176ca1",),
        ),
    ),
)

_BANK: Final = Dataset(
    name="bank-marketing",
    rows=45_211,
    what="clients of a Portuguese bank, calls to them, and whether each took a term deposit",
    licence=_CC_BY,
    citation="Moro, Rita and Cortez (2014). Bank Marketing. UCI Machine Learning Repository. "
    "https://doi.org/10.24432/C5K306",
    origin="https://archive.ics.uci.edu/dataset/222",
    ids=_BY_PLACE,
    parties=(
        Party(
            "client",
            ("age", "job", "marital", "education", "default", "balance", "housing", "loan", "y"),
            label="y",
            categorical=("job", "marital", "education", "default", "housing", "loan"),
        ),
        Party(
            "campaign",
            ("contact", "day", "month", "duration", "campaign", "pdays", "previous", "poutcome"),
            categorical=("contact", "month", "poutcome"),
        ),
    ),
    parse=parsing.parse_bank,
    originals=(
        Original(
            "bank-full.csv",
            "https://archive.ics.uci.edu/static/public/222/bank+marketing.zip",
            ("d1513ec63b385506f7cfce9f2c5caa9fe99e7ba4e8c3fa264b3aaf0f849ed32d",),
            inside=("bank.zip",),
        ),
    ),
)

_ADULT_ZIP: Final = "https://archive.ics.uci.edu/static/public/2/adult.zip"
_REGISTRY: Final = (
    "fnlwgt", "marital_status", "relationship", "race", "sex", "capital_gain", "capital_loss",
    "native_country",
)  # fmt: skip
_ADULT: Final = Dataset(
    name="adult",
    rows=48_842,
    what="people in the US census of 1994, and whether each earns more than 50,000 dollars a year",
    licence=_CC_BY,
    citation="Becker and Kohavi (1996). Adult. UCI Machine Learning Repository. "
    "https://doi.org/10.24432/C5XW20",
    origin="https://archive.ics.uci.edu/dataset/2",
    ids=f"{_BY_PLACE}: adult-00001 to adult-32561 are adult.data, the others adult.test",
    parties=(
        Party(
            "employer",
            ("age", "workclass", "education", "education_num", "hours_per_week", "occupation", "income"),
            label="income",
            categorical=("workclass", "education", "occupation"),
            missing=True,
        ),
        Party(
            "registry",
            _REGISTRY,
            categorical=("marital_status", "relationship", "race", "sex", "native_country"),
            missing=True,
        ),
    ),
    parse=parsing.parse_adult,
    originals=(
        Original(
            "adult.data",
            _ADULT_ZIP,
            (
                "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
                "df25a4e32ed6f1bd4b3910d21a7bd661a09061eced7cb45555a519d9667cc87b",
            ),
        ),
        Original(
            "adult.test",
            _ADULT_ZIP,
            (
                "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
                "3d91fd5daaf590849ce81c856a69278088349fbf7b6e39aa3e67141d067f2fe4",
            ),
        ),
    ),
)


def _mnist_original(name: str, sha256: str) -> Original:
    url = f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz"
    return Original(name, url, (sha256,), aliases=(f"mnist-{name}",), max_bytes=64 * 2**20)


def _half(columns: range) -> tuple[str, ...]:
    return tuple(f"p_{row:02}_{column:02}" for row in range(28) for column in columns)


_MNIST: Final = Dataset(
    name="mnist",
    rows=70_000,
    what="handwritten digits: images of 28 × 28 pixels from 0 to 255, and which digit each shows",
    licence="CC BY-SA 3.0, as those who redistribute it say",
    citation="LeCun, Cortes and Burges (1998). The MNIST Database of Handwritten Digits.",
    origin="http://yann.lecun.com/exdb/mnist",
    ids=f"{_BY_PLACE}: mnist-00001 to mnist-60000 are the official training images",
    parties=(
        Party(
            "left",
            (*_half(range(14)), "digit", "official"),
            label="digit",
            pattern="p_*",
            aside=("official",),
        ),
        Party("right", _half(range(14, 28)), pattern="p_*"),
    ),
    parse=parsing.parse_mnist,
    originals=(
        _mnist_original(
            "train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        _mnist_original(
            "train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        _mnist_original(
            "t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        _mnist_original(
            "t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    ),
)

_MOVIELENS_ZIP: Final = "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip"
_RATING: Final = ("user", "movie", "rating", "timestamp")
_CLUBS: Final = ("club_a", "club_b", "club_c")
_MOVIELENS: Final = Dataset(
    name="movielens",
    rows=100_836,
    what="ratings of 9,724 movies by 610 users, cut by movie between three shops and by user between three "
    "clubs",
    licence="GroupLens: research use and redistribution under the same terms, not commercial",
    citation="Harper and Konstan (2015). The MovieLens Datasets: History and Context. ACM TiiS 5 (4), 19. "
    "https://doi.org/10.1145/2827872",
    origin="https://grouplens.org/datasets/movielens/latest",
    ids="none; a rating has a user and a movie",
    parties=tuple(Party(name, _RATING) for name in ("shop_a", "shop_b", "shop_c", *_CLUBS)),
    parse=parsing.parse_movielens,
    originals=(
        Original(
            "ratings.csv",
            _MOVIELENS_ZIP,
            ("aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646",),
        ),
        Original(
            "movies.csv",
            _MOVIELENS_ZIP,
            ("5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07",),
        ),
    ),
    split=split_ratings,
    left_out=(
        ("tags.csv", "free text, of few movies"),
        ("links.csv", "numbers of the movies elsewhere"),
    ),
    shares_rows=False,
)

_MADE: Final = Dataset(
    name="made-ratings",
    rows=20_737,
    what="MADE UP: ratings of 900 movies that are none by 400 users who are nobody, cut by user between "
    "three clubs",
    licence="none needed",
    citation="nobody: these numbers say nothing of anything",
    origin="made by this package",
    ids="none; a rating has a user and a movie",
    parties=tuple(Party(name, _RATING) for name in _CLUBS),
    parse=make_ratings,
    split=split_ratings,
    comes_with="made by this package",
    shares_rows=False,
)

DATASETS: Final[dict[str, Dataset]] = {
    dataset.name: dataset
    for dataset in (_BREAST_CANCER, _DIGITS, _CREDIT, _BANK, _ADULT, _MNIST, _MOVIELENS, _MADE)
}
