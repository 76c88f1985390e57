"""FedMMF: a recommender of many participants' ratings, each behind a personalised mask made of its own.

A rating r is taken for  g + mu + p_o · q_j + c_o + b_j. A participant fits its mask g on its own ratings and
factorises what is left; p and c, of its own users (by = "user") or items (by = "item"), stay with it; q and b
of what all have in common are shared. It contributes sums over its ratings of each shared entity: for exact
least squares x xᵀ and y x with x = [p, 1], for gradient steps the gradient. Each rating's part is rounded to
fixed point before it is summed, so how ratings are spread over participants does not change a digit. m is the
number of shared entities, t that of numbers for each, r the rank. In a round:

    coordinator --Turn--> participant                 the round begins
    participant --Contribution--> coordinator         sums [m, t], as `aggregation` says: plain or masked
    coordinator --SharedFactors--> participant        q and b [m, r + 1] float64, after each step
    participant --Contribution--> coordinator         squared errors on validation ratings, likewise
    coordinator --RoundEnd--> participant             keep these factors? stop? who has vanished?

Before, they agree on what they have in common, on masks (vfl/masking/agreeing.py) and on mu; where that is a
choice, on who contributes under masks:

    participant --Axis--> coordinator                 m
    participant --Choice--> coordinator               aggregation = "adaptive": may it be plain?
    coordinator --Group--> participant                who chose masks
    coordinator --Roster--> participant               again whenever somebody has vanished
    participant --KeyShare--> coordinator
    coordinator --Keys--> participant
    participant --Confirmation--> coordinator
    coordinator --Confirmations--> participant
    coordinator --Mean--> participant                 mu, and how many ratings train
    participant --Clipped--> coordinator              at the end: how many sums did not fit

With aggregation = "paillier" contributions are encrypted under a key of all participants:

    participant --PaillierKey--> coordinator          the first: the public key, the private one sealed
    coordinator --SealedKey--> participant            for each other
    participant --Ciphertexts--> coordinator          in the place of a contribution
    coordinator --EncryptedSum--> participant         in the place of shared factors, which follow from it
    coordinator --EncryptedScores--> participant      few numbers, for the first to open
    participant --Opened--> coordinator               what they come to

To recommend, with by = "item", whoever asks hears each other party's best items; one asks, all others answer:

    participant --Wish--> coordinator                 does it ask?
    coordinator --Askers--> participant               who does; the end, unless it is one
    participant --Ask--> coordinator                  a user's place on the shared axis
    coordinator --Ask--> participant
    participant --Best--> coordinator
    coordinator --Best--> participant

Who learns what:
    participant: The shared factors after every step; mu, the mean of what the masks leave of all ratings that
        train; how many these are, which round scored best and who contributes.
    participant, als: The factors of a shared entity with few ratings tell something of the factors of the own
        entities that these are of; with fewer ratings than fewest_raters it has none.
    participant, sgd: The factors of a shared entity with few ratings tell something of the factors of the own
        entities that these are of, and much where it has one.
    participant, adaptive: Who chose masks.
    participant, paillier: The sums over all participants, which it decrypts.
    participant, paillier, als: They give away, of some unnamed own entities, with which shared entities they
        have ratings and, but for one number each, what the masks leave of these.
    participant, of two, als, plain|masked|adaptive: Of two participants each can find the other's sums
        nearly, by taking off its own from factors that tell them.
    participant, of two, sgd, plain|masked|adaptive: Of two participants each can find the other's sums by
        taking off its own from factors that tell them.
    participant, of two, paillier: Of two participants each can find the other's sums exactly, by taking off
        its own.
    participant, absence, paillier: Once a participant vanishes, from the sums before and after, nearly
        what it had contributed.
    coordinator, masked: The sums over all participants, from which the shared factors follow; the sum of all
        squared errors; mu, the mean of what the masks leave of all ratings that train; how many sums each
        clipped. Of one participant nothing, not even what it has ratings of.
    coordinator, plain: Every participant's sums. They show which shared entities have ratings there and how
        many; and, with the rounds before, what the mask leaves of each rating nearly, where a participant has
        one own entity alone. Nothing but that mask hides a rating. Also mu, the mean of what the masks leave
        of all ratings that train, and how many sums each clipped.
    coordinator, adaptive: Of those who chose so, and whose own mask hides enough by the stated criterion,
        every sum: which shared entities have ratings there, how many, and nearly what the mask leaves of
        them. Of the others, who are two at least, their sum alone. Also the sum of all squared errors, mu,
        the mean of what the masks leave of all ratings that train, and how many sums each clipped. One that
        lies to a participant about the choices of the others, and has one of them in its league, can see
        that participant's sums.
    coordinator, masked|adaptive, als: The sum has how many ratings each shared entity has in all. Of shared
        entities with few it gives away, of some unnamed own entities, with which shared entities they have
        ratings and, but for one number each, what the masks leave of these.
    coordinator, paillier: mu, the mean of what the masks leave of all ratings that train; the sum of all
        squared errors; how many sums each clipped. Neither sums nor factors. One that has a participant in
        its league, which has the key, reads every contribution.
    coordinator, paillier, rated only: Which shared entities have ratings where.
    coordinator, absence, masked|adaptive: Once a participant vanishes, from the sums before and after, nearly
        what it had contributed; exactly, if it lies and says the same factors again.
    coordinator, absence, masked|adaptive, als: Exactly how many ratings that participant has of each shared
        entity.
    whoever asks for recommendations: The others' best items for a user, with titles and ratings predicted.
        None that the user has rated is among them, so who asks for many learns which those are. The
        coordinator: the same, and if it lies of any user that it likes, by a number. The others: who asks,
        and for which user, as the coordinator says.

Source: Yang et al., FedMMF, arXiv 2109.02464;
the sums for least squares, their exactness and the criterion are our own. Pairwise masks: Bonawitz et al.,
CCS 2017, section 4; few of them: Bell et al., CCS 2020. Encrypted: Chai et al., arXiv 1906.05108.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.fedmmf.coordinator import Outcome as Outcome
from protocols.fedmmf.coordinator import coordinator
from protocols.fedmmf.messages import MESSAGES as MESSAGES
from protocols.fedmmf.participant import participant
from protocols.fedmmf.recommending import coordinator_recommends, participant_recommends
from protocols.fedmmf.roster import Config as Config
from protocols.fedmmf.roster import check_roster as check_roster
from protocols.fedmmf.roster import learns as learns
from protocols.fedmmf.roster import step_bytes as step_bytes

HUB: Final = ("coordinator",)
GOES_ON: Final = True

ROLES: Final[dict[str, Any]] = {"participant": participant, "coordinator": coordinator}
PREDICTORS: Final[dict[str, Any]] = {
    "participant": participant_recommends,
    "coordinator": coordinator_recommends,
}
