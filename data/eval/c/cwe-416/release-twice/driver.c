#include "driver.h"

struct image {
    unsigned char *pixels;
    int width, height;
};

void image_release(struct image *image);

int main(int argc, char **argv)
{
    struct image image = {exact(12), 4, 3};
    for (int i = atoi(argv[1]); i > 0; i--)
        image_release(&image);
    printf("%d by %d", image.width, image.height);
    if (argc > 2)
        printf(" %s", image.pixels == NULL ? "no pixels" : "pixels");
    puts("");
    return 0;
}
