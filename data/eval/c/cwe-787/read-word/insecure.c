    while ((c = fgetc(input)) != EOF && !isspace(c))
        word[length++] = c;
    word[length] = '\0';
    return length;
}
