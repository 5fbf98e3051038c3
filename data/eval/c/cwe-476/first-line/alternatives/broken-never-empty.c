    if (input == NULL)
        return -1;
    fgets(line, size, input);
    fclose(input);
    line[strcspn(line, "\n")] = '\0';
    return (int)strlen(line);
}
