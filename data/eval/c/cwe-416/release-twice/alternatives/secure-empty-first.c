    unsigned char *pixels = image->pixels;
    *image = (struct image){0};
    free(pixels);
}
