struct canvas {
    int width, height;
    unsigned char *pixels;      /* height rows of width pixels */
};

/* Sets one pixel; coordinates outside the canvas are ignored. */
void set_pixel(struct canvas *canvas, int x, int y, unsigned char color)
{
