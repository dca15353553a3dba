/* The kernels' arguments, for the kernels and for the functions that launch them. Data is float or half. */
#pragma once

/* Dropout's masks: noise int32 [rows, width], multipliers int32 [masks], and the layer's {first mask, limit below which
   an element is dropped, bits of the float that scales the others}. Without dropout, noise is 0. */
typedef struct {
  const int *noise, *multipliers, *layer;
  int width;
} Masks;

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

typedef struct {
  void *out;                    /* [rows, columns]; x's gradient in the backward pass */
  float *mean, *scale;          /* [rows], of the forward pass; scale is 1 / standard deviation */
  float *parts;                 /* [2, PARTS, columns], of the gradients of gamma and beta; backward only */
  const void *gradient, *x;     /* [rows, columns] */
  const void *gamma, *beta;     /* [columns] */
  const float *eps;
  int rows, columns;            /* columns at most WIDEST */
} Norm;

typedef struct {
  void *out;                /* [N, channels, height, width] */
  const void *x, *weight;   /* the same; [channels, 1, K, K] */
  const void *input;        /* x of the forward pass, for the gradient of a residual convolution */
  int planes, channels, height, width, tile_rows;
  int flipped, residual;
} Depthwise;

typedef struct {
  const void *x;                           /* [samples, channels, positions] */
  const void *weight[3], *bias[3];         /* [channels], [1] */
  void *y[3];                              /* [samples, positions]; gradients in the backward pass */
  void *grad_x, *grad_weight[3], *grad_bias[3];
  float *parts;                            /* [count, 3, channels + 1]; backward only */
  int samples, channels, positions, count;
} ToOneChannel;

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

enum {
  LANES = 32, /* columns, or packs of them, a block */
  ROWS = 8,   /* rows a block */
  PARTS = 132, /* partial sums of a column, at most: the multiprocessors of an H100 */
  WIDEST = 1024,     /* columns of a row that a warp holds in registers, at most, */
  MOST_TOKENS = 512, /* and of softmax, of whose warps more must run at a time */
  MAPS = 3,   /* of a non-local block */
  LAYER = 3,  /* numbers in `Masks.layer` */
  TILE_ROWS = 32, TILE_COLUMNS = 64, /* of a map in a block, at most */
  PLANES = 65535                     /* blocks along y, at most */
};
