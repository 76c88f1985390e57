"""Secure forward aggregation: contributions are summed under masks that cancel, so that none is seen.

Every party runs its own part of a layer, at best the first, h_k = x_k W_k, rounds it to fixed point and
adds masks that cancel in the sum z of all. From z on it is the one network on all columns. A training step
on a batch of b rows, with cut width d, where the label party sums and runs the trunk:

    feature --Contribution--> label                   h_k + masks   [b, d] int32 or int64
    label --SumGrad--> feature                        dL/dz         [b, d] float32

Or a coordinator, who has no columns and no labels, sums and runs the trunk; labels and head stay with the
label party, which may contribute as the others do (t is the trunk's width):

    feature|label --Contribution--> coordinator       h_k + masks   [b, d]
    coordinator --Hidden--> label                     trunk(z)      [b, t] float32
    label --HiddenGrad--> coordinator                 dL/dtrunk(z)  [b, t] float32
    coordinator --SumGrad--> feature|label            dL/dz         [b, d]

First the coordinator hears how many rows there are, and the contributors agree on keys past whoever sums
(vfl/masking/agreeing.py), again whenever one has vanished. Validation and test rows are summed likewise:

    feature|label --Counts--> coordinator             rows a split
    label --Roster--> feature                         coordinator --Roster--> feature|label
    feature --KeyShare--> label                       feature|label --KeyShare--> coordinator
    label --Keys--> feature                           coordinator --Keys--> feature|label
    feature --Confirmation--> label                   feature|label --Confirmation--> coordinator
    label --Confirmations--> feature                  coordinator --Confirmations--> feature|label
    label --EpochEnd--> feature|coordinator           coordinator --EpochEnd--> feature|label
    feature --Clipped--> label                        feature|label --Clipped--> coordinator
    coordinator --Dropped--> label                    coordinator --Clipped--> label

Who learns what:
    feature: The gradient at the sum for every training row, in the clear. In a binary task it tells the label
        of single rows apart, so take it for granted that a curious feature party can infer training labels.
        Also which epoch scored best and who contributes. Of another party's contribution nothing.
    label, who sums: The sum of the others' contributions for every row, and how many values each clipped. No
        single contribution.
    label, behind a coordinator: What the trunk makes of the sum for every row, how many values each party
        clipped and, where it contributes, the gradient at the sum. No single contribution.
    coordinator: The sum of all contributions for every row; the gradient at the head's input, from which
        labels can be inferred; how many rows there are and how many values each party clipped. No single
        contribution.
    whoever sums: From the sum as much of the columns as an embedding of that width tells: of a first layer as
        wide as all parties' columns together, every column, once some rows are known. Where a party vanishes
        and the job says on_absence = "continue", nearly its contributions, from the sums before and after.
    all but one contributor, with whoever sums: The contribution of the one that is left.

Source: the idea of removable masks at a low layer is from Secure forward aggregation, arXiv 2207.00165; the
protocol and its figures are our own. Pairwise masks: Bonawitz et al., CCS 2017, section 4.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.sfa.contributor import feature_party, feature_predicts
from protocols.sfa.coordinator import coordinator_party, coordinator_predicts
from protocols.sfa.label import label_party, label_predicts
from protocols.sfa.messages import MESSAGES as MESSAGES
from protocols.sfa.roster import Config as Config
from protocols.sfa.roster import check_roster as check_roster
from protocols.sfa.roster import learns as learns
from protocols.sfa.roster import step_bytes as step_bytes

#: The first of these roles that a job has is that of the party with the one open port, which sums.
HUB: Final = ("coordinator", "label")
GOES_ON: Final = True

ROLES: Final[dict[str, Any]] = {
    "feature": feature_party,
    "label": label_party,
    "coordinator": coordinator_party,
}
PREDICTORS: Final[dict[str, Any]] = {
    "feature": feature_predicts,
    "label": label_predicts,
    "coordinator": coordinator_predicts,
}
