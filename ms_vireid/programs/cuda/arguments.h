/* The kernels' arguments, for the kernels and for the functions that launch them. Data is float or half. */
#pragma once

/* Dropout's masks: noise int32 [rows, width], or what its hash starts from, int32 [rows] and [width]; multipliers int32
   [masks], and the layer's {first mask, limit below which an element is dropped, bits of the float that scales the
   others}. Without dropout, layer is 0. */
typedef struct {
  const int *noise, *row_starts, *column_starts, *multipliers, *layer;
  int width;
} Masks;

typedef struct {
  void *out;                       /* [rows, columns] */
  const void *x;
  Masks masks;
  int rows, columns;
} Dropout;

typedef struct {
  void *out;                       /* [rows, columns] */
  float *parts;                    /* [PARTS, columns], partial sums of out's columns; backward only */
  const void *gradient, *x, *bias; /* [rows, columns] twice, [columns] */
  Masks masks;
  int rows, columns;
} Gelu;

typedef struct {
  void *out;                    /* [rows, columns] */
  float *parts;                 /* [PARTS, columns]; backward only */
  const void *rest, *x, *bias;  /* [rows, columns] twice, [columns]; x is the gradient in the backward pass */
  const void *factors;          /* [rows / tokens] or 0 */
  Masks masks;
  int rows, columns, tokens;
} Residual;

/* `padded` tokens of each sample are in memory: the first `tokens` and rows of zeros. */
typedef struct {
  void *query, *key, *value;    /* [N, heads, padded, width]; gradients in the backward pass */
  void *joined;                 /* [N * tokens, 3 * heads * width] */
  float *parts;                 /* [PARTS, 3 * heads * width]; backward only */
  const void *bias;             /* [3 * heads * width] */
  float scale;                  /* of the queries */
  int samples, tokens, padded, heads, width;
} Heads;

typedef struct {
  void *split;    /* [N, heads, padded, width] */
  void *merged;   /* [N * tokens, heads * width] */
  int samples, tokens, padded, heads, width;
} Merge;

typedef struct {
  void *out;                    /* [rows, padded], each `padded` rows of which have `tokens` that are not zeros */
  const void *x, *gradient;     /* the same; x is the softmax in the backward pass */
  int rows, tokens, padded;     /* padded at most MOST_TOKENS */
} Softmax;

typedef struct {
  void *out, *second;           /* [columns] each; there may be no second */
  const float *parts;           /* [one or two, count, columns] */
  int count, columns;
} Sum;

/* Feature maps that depth-wise convolutions take in tiles of at most TILE_ROWS x TILE_COLUMNS. */
typedef struct {
  int planes, channels, height, width, tile_rows; /* planes: N * channels */
} Maps;

typedef struct {
  void *out;                    /* [rows, columns]; x's gradient in the backward pass, */
  void *again;                  /* and what the forward pass gave, or 0 */
  float *mean, *scale;          /* [rows], of the forward pass; scale is 1 / standard deviation */
  float *parts;                 /* [2, PARTS, columns], of the gradients of gamma and beta; backward only */
  const void *gradient, *x;     /* [rows, columns] */
  const void *rest;             /* [rows, columns], added to x's gradient, or 0 */
  const void *gamma, *beta;     /* [columns] */
  const float *eps;
  int rows, columns;            /* columns at most WIDEST */
} Norm;

typedef struct {
  void *out;                /* [N, channels, height, width] */
  const void *x, *weight;   /* the same; [channels, 1, K, K] */
  const void *input;        /* x of the forward pass, for the gradient of a residual convolution */
  int flipped, residual;
  Maps maps;
} Depthwise;

typedef struct {
  float *parts;             /* [parts, channels, K, K], partial sums of the filters' gradients */
  const void *gradient, *x; /* [N, channels, height, width] twice */
  int residual, tiles;      /* tiles: of a plane */
  Maps maps;
} DepthwiseFilter;

/* Feature maps [samples, channels, H, W]: a warp takes a run of `run` packs of a plane, which has `runs` of them. */
typedef struct {
  int samples, channels, size, runs, run; /* size: H * W */
} Channels;

typedef struct {
  void *out;                                /* [N, C, H, W] */
  float *statistics, *parts;                /* [2, C], means and 1 / deviations; [C, parts, 2], partial sums */
  float *running_mean, *running_variance;   /* [C] */
  const void *x, *rest;                     /* [N, C, H, W] twice; rest or 0 */
  const float *gamma, *beta, *numbers;      /* [C] twice; eps and the momentum of new statistics */
  int relu;
  Channels shape;
} BatchNorm;

typedef struct {
  void *grad_x, *grad_rest;                 /* [N, C, H, W] twice */
  float *grad_gamma, *grad_beta, *parts;    /* [C] twice; [C, parts, 2] */
  const void *gradient, *x, *y;             /* [N, C, H, W] each; y, and with it grad_rest, or 0 */
  const float *gamma, *beta, *statistics;
  int relu;
  Channels shape;
} BatchNormGradient;

typedef struct {
  float *pooled;                            /* [planes] */
  void *grad_x;                             /* [planes, size]; backward only */
  const void *x;                            /* [planes, size] */
  const float *gradient, *numbers;          /* [planes], backward only; power and eps */
  int planes, size;
} Gem;

typedef struct {
  const void *x;                           /* [samples, channels, positions] */
  const void *weight[3], *bias[3];         /* [channels], [1] */
  void *y[3];                              /* [samples, positions]; gradients in the backward pass */
  void *grad_x, *grad_weight[3], *grad_bias[3];
  float *parts;                            /* [count, 3, channels + 1]; backward only */
  int samples, channels, positions, count;
} ToOneChannel;

typedef struct {
  float *out;                   /* [count, n, m], or [count, n, columns] of the gradient */
  const float *x, *y;           /* [count, n, columns], [count, m, columns] */
  const float *gradient;        /* [count, n, m], or [count, m, n] if transposed */
  int count, n, m, columns, transposed;
} Distances;

typedef struct {
  float *out;                   /* [rows], or [rows, columns] of the gradient */
  const float *values;          /* [rows, columns] */
  const unsigned char *mask;    /* the same */
  const float *extremes;        /* [rows]; backward only */
  const float *gradient;        /* [rows] */
  int rows, columns;
  float sign;                   /* 1 for maxima, -1 for minima */
} Extremes;

typedef struct {
  float *weight, *state, *second_state; /* [count] each */
  const float *gradient;
  const float *scalars;                 /* [groups, columns] */
  const int *group;                     /* the weights' */
  const float *limits;                  /* the least and the largest weight, or 0 */
  const unsigned char *applies;         /* whether there is an update */
  long long count;
  int columns, nesterov;
} Update;

typedef struct {
  void *out;
  const void *x;
  const float *scale;
  long long count;
} Scaled;

enum {
  PIECES = 140,       /* of a launch of Join, whose arguments may take 4 KB */
  CHUNK = 16384,      /* bytes that a block of Join copies */
  ALIGNED = 128       /* elements to which join_aligned aligns its pieces */
};

typedef struct {
  void *whole;               /* [rows, columns] */
  void *pieces[PIECES];      /* [rows, widths[i]] each */
  long long firsts[PIECES];  /* columns of the whole */
  long long widths[PIECES];
  int ends[PIECES];          /* blocks of the pieces up to each of them */
  long long rows, columns;
  int count, unit;           /* zeros fill a piece's width up to a multiple of this; 1 if there are several rows */
} Join;

typedef struct {
  void *grad_x;                             /* [planes, height, width] */
  const void *x;                            /* the same */
  void *pooled;                             /* [planes, pooled_height, pooled_width]; gradient in the backward pass */
  unsigned char *places;                    /* of the largest in its window of 9 */
  int planes, height, width, pooled_height, pooled_width;
} MaxPool;

enum { RATIOS = 8 }; /* of average pooling at once, at most */
typedef struct {
  void *grad_x;                             /* [planes, height, width] */
  const void *x;                            /* the same */
  void *pooled[RATIOS];                     /* [planes, height / ratio, width / ratio]; gradients in the backward pass */
  int ratios[RATIOS];
  unsigned inverses[RATIOS];                /* 2^31 / ratio and less than 1 more */
  int count, planes, height, width;
} AveragePools;

enum {
  LANES = 32, /* columns, or packs of them, a block */
  ROWS = 8,   /* rows a block */
  PARTS = 132, /* partial sums of a column, at most: the multiprocessors of an H100 */
  WIDEST = 1024,     /* columns of a row that a warp holds in registers, at most, */
  MOST_TOKENS = 512, /* and of softmax, of whose warps more must run at a time */
  MAPS = 3,   /* of a non-local block */
  RUN = 4,    /* packs of a channel that a lane loads at a time */
  BLOCKS = 2048, /* that fill a GPU */
  LAYER = 3,  /* numbers in `Masks.layer` */
  TILE_ROWS = 32, TILE_COLUMNS = 64, /* of a map in a block, at most */
  PLANES = 65535                     /* blocks along y, at most */
};
