"""The losses of PMT (AAAI 2023), of its Table 2 and of MUN (ICCV 2023); `batch.py` says what a batch is."""

from ms_vireid.losses.alignment import IdentityAlignmentLoss, IdentityConsistencyLoss, ModalityAlignmentLoss
from ms_vireid.losses.dcl import DiscriminativeCenterLoss
from ms_vireid.losses.distance import cosine_distance, euclidean_distance
from ms_vireid.losses.enhanced import EnhancedSquaredDifferenceLoss
from ms_vireid.losses.hetero_center import HeteroCenterTripletLoss
from ms_vireid.losses.identity import AuxiliaryIdentityLoss, IdentityLoss
from ms_vireid.losses.mmd import squared_mmd
from ms_vireid.losses.msel import ModalitySharedEnhancementLoss
from ms_vireid.losses.triplet import HardTripletLoss, ProgressiveHardTripletLoss, WeightedRegularizedTripletLoss
