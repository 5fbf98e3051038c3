#include "driver.h"

int quote_lines(FILE *from, FILE *to);

int main(int argc, char **argv)
{
    int count = quote_lines(stdin, stdout);
    printf("%d\n", count);
    return 0;
}
