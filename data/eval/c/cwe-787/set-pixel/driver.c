#include "driver.h"

struct canvas {
    int width, height;
    unsigned char *pixels;
};

void set_pixel(struct canvas *canvas, int x, int y, unsigned char color);

int main(int argc, char **argv)
{
    struct canvas canvas = {4, 3, exact(12)};
    memset(canvas.pixels, '.', 12);
    set_pixel(&canvas, atoi(argv[1]), atoi(argv[2]), '#');
    printf("%.12s\n", canvas.pixels);
    return 0;
}
