"""The numbers behind the generators, each with its source and evidence tag, so that no generator needs a data file.

[P] a paper's text, [C] released data, [M] measured by us from released data or its published plots, [T] a third party's
figure, [I] ours: no source has it.
"""

from headrace.workload.quantiles import Quantiles, Shares

# Azure LMM inference trace 2025 (Azure/AzurePublicDataset, data behind ModServe, arXiv 2502.00937), 15-22 October 2024.
# 1,000,000 requests in a week, half of them with images by construction [C].
LMM_REQUESTS_PER_MIN = 99.2
LMM_IMAGE_SHARE = 0.5
# Of the hours' image shares: least, median, greatest [T].
LMM_HOURLY_SHARE = (0.163, 0.491, 0.778)

# Token counts at these quantiles. p10-p90 of the contexts are exact [T]; the rest is read off the released notebook's
# plots, +-2.2 % [M]; the ends are the plots' [M], but for the text prompt's 32,418, where its curve stops.
_P = (0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1.0)
LMM_CONTEXT_IMAGE = Quantiles(_P, (64, 342, 435, 882, 1422, 4049, 9703, 19_500, 35_400, 130_349))
LMM_CONTEXT_TEXT = Quantiles(_P, (4, 135, 176, 370, 792, 1471, 3151, 4100, 11_700, 32_418))
LMM_OUTPUT_IMAGE = Quantiles(_P, (1, 9, 14, 33, 79, 175, 396, 502, 756, 1044))
LMM_OUTPUT_TEXT = Quantiles(_P, (1, 1, 8, 25, 144, 217, 461, 740, 1188, 1866))

# Images per request of the requests that have some [M]; 101..529 carry .054, of which .018 at 529, here on the squares
# between. The paper clips to 0..16.
LMM_IMAGES = Shares(
    (1, 4, 9, 16, 25, 36, 49, 100, 144, 225, 324, 529),
    (0.661, 0.047, 0.149, 0.018, 0.048, 0.006, 0.006, 0.011, 0.012, 0.012, 0.012, 0.018),
)
LMM_IMAGES_CLIP = 16
LMM_IMAGES_CLIPPED = Shares((1, 4, 9, 16), (0.755, 0.054, 0.170, 0.021))  # [I]: renormalised

# Image sizes: median of width and of height, and a value that their P95 exceeds [P].
IMAGE_SIDE_MEDIAN_PX = 500.0
IMAGE_SIDE_P95_PX = 1000.0

# What of an image request's prompt tokens are image tokens: the Azure trace counts both in one. 0.60 is the share over
# all requests of ServeGen's 35 mm-image clients (alibaba/ServeGen, mean text and image tokens of each client weighted
# by its requests) [M]; single clients lie between 0 and 0.97.
IMAGE_TOKEN_SHARE = 0.60


def _hours(lines: str) -> tuple[int, ...]:
    return tuple(map(int, lines.split()))


# Requests per minute in each hour (a line: a day) from 2024-10-15 12:00 UTC, a Tuesday: the middles of the envelopes in
# the published plot,
# scaled to their known means, 49.6 [M]. The image curve's lower edge lies under the text curve, so its middle is too
# flat: it is raised to the power 1.2, which gives the hours' image shares their known extremes [I].
IMAGE_WEEK = _hours(
    """
    48 76 94 103 85 107 71 69 80 66 63 54 67 61 51 58 63 33 31 51 111 52 65 58
    51 63 118 115 137 54 85 49 69 47 24 23 20 21 28 29 78 54 28 32 63 47 55 57
    35 52 51 75 94 98 81 126 91 107 36 35 17 33 22 28 25 21 31 24 60 34 44 39
    31 35 41 47 77 85 43 41 45 40 41 39 34 51 54 35 26 23 32 48 69 30 28 23
    28 14 25 29 26 19 28 28 22 21 23 16 19 24 19 26 32 34 30 34 49 30 19 15
    25 37 19 34 34 26 33 22 22 22 23 16 26 21 19 17 45 45 30 98 136 57 50 48
    89 72 49 56 83 100 86 92 90 80 86 49 37 67 50 68 61 39 43 44 55 47 67 60
    """
)
TEXT_WEEK = _hours(
    """
    44 44 57 48 49 47 44 55 44 42 40 50 55 52 42 57 52 51 52 60 57 65 62 47
    48 46 46 39 42 60 49 65 41 63 81 85 90 85 85 88 71 58 114 121 100 67 45 48
    52 49 46 51 48 49 38 52 59 91 67 41 111 101 99 117 101 89 87 81 89 78 69 66
    66 57 54 55 55 63 53 53 55 66 71 68 68 73 55 38 25 23 32 36 32 27 39 43
    43 42 35 28 40 39 34 25 19 17 19 19 20 24 27 34 25 31 29 26 30 34 29 24
    22 20 24 18 19 22 18 11 13 11 11 13 19 28 41 49 40 39 43 43 49 49 41 43
    55 53 62 37 38 39 31 35 37 34 46 47 44 50 57 53 45 37 43 56 80 66 55 62
    """
)

# Azure LLM inference trace 2023 (Splitwise): rate, cv of inter-arrival times and p50/p90/p99 of the whole hour [M]; the
# quantiles between from its first 1,800 s [M]. Input and output lengths are uncorrelated (Spearman .03 and -.01) [M].
CONV_RPS, CONV_CV = 5.53, 1.09
CODE_RPS, CODE_CV = 2.57, 13.15
_P_TEXT = (0.0, 0.01, 0.05, 0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.75, 0.90, 0.99, 1.0)
CONV_INPUT = Quantiles(_P_TEXT, (2, 39, 181, 310, 389, 406, 944, 1020, 1080, 1142, 1204, 2735, 4142, 14_050))
CONV_OUTPUT = Quantiles(_P_TEXT, (7, 16, 38, 49, 71, 87, 100, 129, 198, 390, 396, 424, 601, 1000))
CODE_INPUT = Quantiles(_P_TEXT, (3, 17, 76, 147, 374, 768, 1060, 1469, 1880, 2410, 2702, 5188, 7436, 7437))
CODE_OUTPUT = Quantiles(_P_TEXT, (6, 6, 6, 7, 8, 9, 11, 13, 16, 19, 23, 55, 251, 1899))

# ShareGPT conversations as LMBenchmark samples them (LMCache/LMBenchmark, sharegpt/run.json): 252 rows, prompts with
# the conversation so far [M]. Whoever has the data set itself should load it instead.
_P_SHARE = (0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 1.0)
SHAREGPT_INPUT = Quantiles(_P_SHARE, (152, 425, 502, 795, 1130, 1475, 1740, 1849, 2055))
SHAREGPT_OUTPUT = Quantiles(_P_SHARE, (1, 25, 62, 131, 224, 298, 390, 447, 690))
