    if (image->pixels != NULL && image->width >= 0)
        free(image->pixels);
    image->width = 0;
    image->height = 0;
}
