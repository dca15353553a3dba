"""Twin of `ms_vireid.losses`."""

from torch_ref.losses.alignment import IdentityAlignmentLoss, IdentityConsistencyLoss, ModalityAlignmentLoss
from torch_ref.losses.dcl import DiscriminativeCenterLoss
from torch_ref.losses.distance import cosine_distance, euclidean_distance
from torch_ref.losses.enhanced import EnhancedSquaredDifferenceLoss
from torch_ref.losses.hetero_center import HeteroCenterTripletLoss
from torch_ref.losses.identity import AuxiliaryIdentityLoss, IdentityLoss
from torch_ref.losses.mmd import squared_mmd
from torch_ref.losses.msel import ModalitySharedEnhancementLoss
from torch_ref.losses.triplet import HardTripletLoss, ProgressiveHardTripletLoss, WeightedRegularizedTripletLoss
