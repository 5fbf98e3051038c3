    if (sign == NULL)
        return NULL;
    sign++;
    while (*sign == ' ')
        sign++;
    return sign;
}
