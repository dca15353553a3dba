/* Numbers that the kernels, the functions that launch them, and Python share. */
#pragma once

enum {
  LANES = 32,        /* columns, or packs of them, a block */
  ROWS = 8,          /* rows a block */
  PARTS = 132,       /* partial sums of a column, at most: the multiprocessors of an H100 */
  WIDEST = 1024,     /* columns of a row that a warp holds in registers, at most, */
  MOST_TOKENS = 512, /* and of softmax, of whose warps more must run at a time */
  MAPS = 3,          /* of a non-local block */
  TERMS = 16,        /* of a loss, at most */
  VECTORS = 8,       /* whose gradients are added up at once, at most */
  SAMPLE_PARTS = 16, /* of the samples, over which a non-local block's gradients are summed, at most */
  RUN = 4,           /* packs of a channel that a lane loads at a time */
  BLOCKS = 528,      /* that fill a GPU */
  SUMMED = 32768,    /* partial sums of all channels of a map, about */
  PLACES = 64,       /* of a map, for a block, at least */
  WHOLE = 16384,     /* places of a map that a block reads twice, at most */
  JOINED = 16,       /* maps that BatchNorm joins, at most */
  NEAR = 32,         /* places whose mean moments are taken about */
  CONVOLUTIONS = 56, /* whose weights are turned at once, at most */
  WEIGHTS = 4096,    /* of those in a block's memory */
  LARGEST_SIZE = 64, /* of a filter, of which one has to fit */
  ALONG = 4,         /* neighbouring places of a depth-wise convolution in a thread */
  RATIOS = 8,        /* of average pooling at once, at most */
  PLANES = 65535,    /* blocks along y, at most */
  PIECES = 140,      /* of a launch of Join, whose arguments may take 4 KB */
  CHUNK = 16384,     /* bytes that a block of Join copies */
  ALIGNED = 128      /* elements to which join_aligned aligns its pieces */
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
