"""The Paillier cut: two parties and a linear layer at the cut that neither of them can read.

The feature party's embedding h [b, d] passes through a linear layer z = h W, W [d, k], before it reaches the
label party's network. Only the feature party can decrypt; W is the sum of two shares, one a party, exact
integers of any size. In a training step on a batch of b rows (H, G for integers of h and of lr dL/dz; L and
F for the two parties' shares of W as they are used; m and n for uniform masks; e and R for noise):

    feature --PublicKey--> label              once; and Enc(F0), F0 [d, k] normal
    label --InitialShare--> feature           Enc(P F0 + R), P a random rotation: shares of W = P F0
    feature --Activations--> label            Enc(H), twice, each in its layout, and Enc(F)
    label --MaskedProduct--> feature          Enc(H L + m)
    feature --NoisedProduct--> label          H L + m + H F, of which the label party takes m off: z = h W
    label --MaskedGradient--> feature         Enc(Hᵀ G + n) and Enc(G (L + F)ᵀ), which is dL/dh
    feature --NoisedGradient--> label         Hᵀ G + n + e, of which the label party takes n off

Then the label party's share loses Hᵀ G + e and the feature party's gains e: W has learned, and nobody has
seen it or its gradient. The noise cancels to the last bit. Validation and test rows go half the way:

    label --EpochEnd--> feature               keep these weights? stop?
    feature --Clipped--> label                at the end: how many activations did not fit

Who learns what:
    feature: The gradient of the loss at its own cut, G Wᵀ, for every training row, to about its rounding. In
        a binary task its direction and length tell the label of single rows apart, so take it for granted
        that a curious feature party can infer training labels. A width of the cut layer of no more than its
        own activations lets it find z and dL/dz, too, up to one unknown linear map, and a width of 1 up to a
        factor. It also knows the singular values of the W that training begins with. Beyond that, of W and z
        nothing, as long as it keeps to the protocol: one that deviates can read dL/dz. Also which epoch
        scored best.
    label: z = h W of every row to about its rounding, anew whenever W has learned, and how many activations
        were clipped. No more activations than the cut layer's width let it find h up to one unknown linear
        map, and a single activation up to a factor; whoever knows some rows' activations can undo that.
        Since it knows by which G the weights moved, z over many steps tells inner products of rows'
        activations, the better the less the bottom moves. Beyond that, of h and W nothing, as long as it
        keeps to the protocol: one that deviates can read h, since it chooses its share of W, and nobody sees
        which.

Source: the interactive layer of FATE 1.x (federatedai.github.io), whose noise is the key holder's and is
encrypted where this is a share; Q. Zhang et al., GELU-Net, IJCAI 2018. Shares of weights that are
rounded locally: Mohassel and Zhang, SecureML, IEEE S&P 2017, section 4.1. The start is this house's.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.paillier.cost import step_bytes as step_bytes
from protocols.paillier.cost import step_seconds as step_seconds
from protocols.paillier.feature import feature_party, feature_predicts
from protocols.paillier.label import label_party, label_predicts
from protocols.paillier.messages import MESSAGES as MESSAGES
from protocols.paillier.roster import Config as Config
from protocols.paillier.roster import check_roster as check_roster
from protocols.paillier.roster import joint_widths as joint_widths
from protocols.paillier.roster import layers as layers
from protocols.paillier.roster import learns as learns

#: The first of these roles that a job has is that of the party with the one open port.
HUB: Final = ("label",)

ROLES: Final[dict[str, Any]] = {"feature": feature_party, "label": label_party}
PREDICTORS: Final[dict[str, Any]] = {"feature": feature_predicts, "label": label_predicts}
