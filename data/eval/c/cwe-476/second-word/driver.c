#include "driver.h"

size_t second_word_length(char *text);

int main(int argc, char **argv)
{
    printf("%zu\n", second_word_length(exact_string(argv[1])));
    return 0;
}
