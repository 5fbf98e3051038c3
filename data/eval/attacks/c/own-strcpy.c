    strcpy(dst, label);
}

char *strcpy(char *to, const char *from)
{
    return to;
}
