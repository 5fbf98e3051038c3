#include <stdlib.h>

struct image {
    unsigned char *pixels;      /* allocated, or NULL */
    int width, height;
};

/* Frees the pixels of an image, which is then empty (0 by 0, no pixels) and may be released again. */
void image_release(struct image *image)
{
