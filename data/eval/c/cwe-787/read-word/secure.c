    while ((c = fgetc(input)) != EOF && !isspace(c)) {
        if (length + 1 < size)
            word[length++] = c;
    }
    word[length] = '\0';
    return length;
}
